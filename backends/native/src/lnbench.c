/* Targets: the only list of them, the choice among them, and what the library says about itself. */
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#ifndef LNB_VERSION
#define LNB_VERSION "0"
#endif

/* What the files of a target `t` define; `b` is the target whose kernels it takes for bfloat16. */
#define TABLE(pass, t, types) extern const struct lnb_##pass LNB_SYMBOL(pass, t, types)
#define TABLES(pass, t, b)                                                                                             \
    TABLE(pass, t, f32);                                                                                               \
    TABLE(pass, t, f64);                                                                                               \
    TABLE(pass, t, f16);                                                                                               \
    TABLE(pass, t, f16_f32);                                                                                           \
    TABLE(pass, b, bf16);                                                                                              \
    TABLE(pass, b, bf16_f32)
#define DECLARE(t, b)                                                                                                  \
    TABLES(forward, t, b);                                                                                             \
    TABLES(backward, t, b)

#define ENTRY(pass, t, b)                                                                                              \
    {                                                                                                                  \
        [LNB_F32] = {&LNB_SYMBOL(pass, t, f32)}, [LNB_F64] = {&LNB_SYMBOL(pass, t, f64)},                              \
        [LNB_F16] = {&LNB_SYMBOL(pass, t, f16), &LNB_SYMBOL(pass, t, f16_f32)},                                        \
        [LNB_BF16] = {&LNB_SYMBOL(pass, b, bf16), &LNB_SYMBOL(pass, b, bf16_f32)},                                     \
    }
#define TARGET(t, b) {#b, lnb_has_##b, ENTRY(forward, t, b), ENTRY(backward, t, b)}

#ifdef LNB_COMPILED_avx512_bf16
DECLARE(avx512, avx512_bf16);
#endif
#ifdef LNB_COMPILED_avx512
DECLARE(avx512, avx512);
#endif
#ifdef LNB_COMPILED_avx2
DECLARE(avx2, avx2);
#endif
#ifdef LNB_COMPILED_neon
DECLARE(neon, neon);
#endif
DECLARE(baseline, baseline);

/* Best first. */
static const struct lnb_target targets[] = {
#ifdef LNB_COMPILED_avx512_bf16
    TARGET(avx512, avx512_bf16),
#endif
#ifdef LNB_COMPILED_avx512
    TARGET(avx512, avx512),
#endif
#ifdef LNB_COMPILED_avx2
    TARGET(avx2, avx2),
#endif
#ifdef LNB_COMPILED_neon
    TARGET(neon, neon),
#endif
    TARGET(baseline, baseline),
};

enum { TARGETS = sizeof targets / sizeof targets[0] };

static _Atomic(const struct lnb_target *) active;
static _Thread_local char reason[200];
static _Thread_local char description[320];

int lnb_refuse(int status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    return status;
}

static const struct lnb_target *find(const char *name) {
    for (int i = 0; i < TARGETS; i++) {
        if (name && *name && strcmp(name, targets[i].name)) continue;
        if (targets[i].supported()) return &targets[i];
        if (!name || !*name) continue;
        lnb_refuse(LNB_INVALID, "target %.40s cannot run on this processor; it can run %s", name, lnb_targets());
        return NULL;
    }
    lnb_refuse(LNB_INVALID, "there is no target %.40s; this machine can run %s", name, lnb_targets());
    return NULL;
}

const struct lnb_target *lnb_active(void) {
    const struct lnb_target *t = atomic_load_explicit(&active, memory_order_acquire);
    if (__builtin_expect(t != NULL, 1)) return t;
    t = find(getenv("LNBENCH_TARGET"));
    if (t) atomic_store_explicit(&active, t, memory_order_release);
    return t;
}

int lnb_set_target(const char *name) {
    const struct lnb_target *t = find(name);
    if (!t) return LNB_INVALID;
    atomic_store_explicit(&active, t, memory_order_release);
    return LNB_OK;
}

const char *lnb_target(void) {
    const struct lnb_target *t = lnb_active();
    return t ? t->name : NULL;
}

const char *lnb_targets(void) {
    static _Thread_local char names[64];
    size_t used = 0;
    names[0] = 0;
    for (int i = 0; i < TARGETS; i++) {
        if (!targets[i].supported()) continue;
        int n = snprintf(names + used, sizeof names - used, "%s%s", used ? "," : "", targets[i].name);
        used += (size_t)n;
    }
    return names;
}

uint32_t lnb_abi_version(void) { return LNB_ABI_VERSION; }

const char *lnb_reason(void) { return reason; }

const char *lnb_describe(void) {
    const struct lnb_target *t = lnb_active();
    snprintf(description, sizeof description,
             "name=native;version=%s;device=cpu;target=%s;statistics=rstd;statistics_dtype=float32;accumulate=float32;"
             "cast=late;inplace=both;deterministic=yes;batch_invariant=yes;subnormals=keep;domain=full;"
             "alignment=element;threads=call",
             LNB_VERSION, t ? t->name : "none");
    return description;
}
