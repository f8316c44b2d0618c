/*
 * Copies, triads and reads at the speed of the machine: what kernels are measured against. The widest vectors of the
 * processor, ordinary or non-temporal stores, with or without prefetch instructions; which combination is
 * fastest depends on the machine and the working set, so the caller tries all and takes the best.
 */
#include "ceilings.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { LINE_FLOATS = 16, AHEAD_FLOATS = 1024, MAX_THREADS = 1024 };

/* dst = a, dst = a + 0.5 b, or (dst NULL) the sum of a, over n floats, n a multiple of LINE_FLOATS, dst on a line. */
typedef float (*body_fn)(float *dst, const float *a, const float *b, int64_t n, int style);

static float body_plain(float *dst, const float *a, const float *b, int64_t n, int style) {
    float sum[LINE_FLOATS] = {0}, total = 0;
    (void)style;
    for (int64_t i = 0; i < n; i += LINE_FLOATS) {
        for (int k = 0; k < LINE_FLOATS; k++) {
            if (!dst) sum[k] += a[i + k];
            else dst[i + k] = b ? a[i + k] + 0.5f * b[i + k] : a[i + k];
        }
    }
    for (int k = 0; k < LINE_FLOATS; k++) total += sum[k];
    return total;
}

#if defined(__x86_64__)
#define BODY(name, target_features, vec, lanes, zero, half, load, store, stream, add, fma, reduce)                     \
    __attribute__((target(target_features), always_inline)) static inline float name##_as(                             \
        float *dst, const float *a, const float *b, int64_t n, int streams, int prefetches) {                          \
        vec sum[LINE_FLOATS / (lanes)];                                                                                \
        const vec scale = half;                                                                                        \
        for (int k = 0; k < LINE_FLOATS / (lanes); k++) sum[k] = zero;                                                 \
        for (int64_t i = 0; i < n; i += LINE_FLOATS) {                                                                 \
            if (prefetches) __builtin_prefetch(a + i + AHEAD_FLOATS);                                                  \
            if (prefetches && b) __builtin_prefetch(b + i + AHEAD_FLOATS);                                             \
            for (int k = 0; k < LINE_FLOATS / (lanes); k++) {                                                          \
                int64_t j = i + k * (lanes);                                                                           \
                vec v = load(a + j);                                                                                   \
                if (b) v = fma(scale, load(b + j), v);                                                                 \
                if (!dst) sum[k] = add(sum[k], v);                                                                     \
                else if (streams) stream(dst + j, v);                                                                  \
                else store(dst + j, v);                                                                                \
            }                                                                                                          \
        }                                                                                                              \
        if (streams) _mm_sfence();                                                                                     \
        for (int k = 1; k < LINE_FLOATS / (lanes); k++) sum[0] = add(sum[0], sum[k]);                                  \
        return reduce(sum[0]);                                                                                         \
    }                                                                                                                  \
    __attribute__((target(target_features), always_inline)) static inline float name##_op(                             \
        float *dst, const float *a, const float *b, int64_t n, int style) {                                            \
        switch (style) {                                                                                               \
        case LNB_PROBE_STREAM: return name##_as(dst, a, b, n, 1, 0);                                                   \
        case LNB_PROBE_PREFETCH: return name##_as(dst, a, b, n, 0, 1);                                                 \
        case LNB_PROBE_STREAM | LNB_PROBE_PREFETCH: return name##_as(dst, a, b, n, 1, 1);                              \
        default: return name##_as(dst, a, b, n, 0, 0);                                                                 \
        }                                                                                                              \
    }                                                                                                                  \
    /* Each operation has loops of its own. */                                                                         \
    __attribute__((target(target_features))) static float name(float *dst, const float *a, const float *b, int64_t n,  \
                                                               int style) {                                            \
        if (!dst) return name##_op(NULL, a, NULL, n, style & ~LNB_PROBE_STREAM);                                       \
        return b ? name##_op(dst, a, b, n, style) : name##_op(dst, a, NULL, n, style);                                 \
    }

__attribute__((target("avx2"))) static inline float first256(__m256 v) { return _mm256_cvtss_f32(v); }
__attribute__((target("avx512f"))) static inline float first512(__m512 v) { return _mm512_cvtss_f32(v); }

BODY(body_avx2, "avx2,fma", __m256, 8, _mm256_setzero_ps(), _mm256_set1_ps(0.5f), _mm256_loadu_ps, _mm256_storeu_ps,
     _mm256_stream_ps, _mm256_add_ps, _mm256_fmadd_ps, first256)
BODY(body_avx512, "avx512f,fma", __m512, 16, _mm512_setzero_ps(), _mm512_set1_ps(0.5f), _mm512_loadu_ps,
     _mm512_storeu_ps, _mm512_stream_ps, _mm512_add_ps, _mm512_fmadd_ps, first512)
#endif

static body_fn body_for(const char **name) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma")) return *name = "avx512", body_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return *name = "avx2", body_avx2;
#endif
    return *name = "baseline", body_plain;
}

const char *lnb_probe_width(void) {
    const char *name;
    body_for(&name);
    return name;
}

struct job {
    float *dst;
    const float *a, *b;
    int64_t count; /* floats */
    int threads, style, repeats;
    body_fn body;
    atomic_int arrived, abandoned;
};

struct member {
    struct job *job;
    int index;
    double start, end, sum;
    pthread_t thread;
};

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A share begins where dst has a line; what is left over at its two ends is done one by one. */
static double once(const struct job *j, int64_t first, int64_t last) {
    double sum = 0;
    int64_t i = first;
    for (; i < last && ((uintptr_t)(j->dst ? j->dst + i : (const float *)j->a + i) & 63); i++) {
        if (!j->dst) sum += j->a[i];
        else j->dst[i] = j->b ? j->a[i] + 0.5f * j->b[i] : j->a[i];
    }
    int64_t whole = (last - i) / LINE_FLOATS * LINE_FLOATS;
    if (whole) sum += j->body(j->dst ? j->dst + i : NULL, j->a + i, j->b ? j->b + i : NULL, whole, j->style);
    for (i += whole; i < last; i++) {
        if (!j->dst) sum += j->a[i];
        else j->dst[i] = j->b ? j->a[i] + 0.5f * j->b[i] : j->a[i];
    }
    return sum;
}

static void *work(void *argument) {
    struct member *m = argument;
    struct job *j = m->job;
    int64_t lines = j->count / LINE_FLOATS;
    int64_t first = lines * m->index / j->threads * LINE_FLOATS;
    int64_t last = m->index + 1 == j->threads ? j->count : lines * (m->index + 1) / j->threads * LINE_FLOATS;
    unsigned looks = 0;
    atomic_fetch_add(&j->arrived, 1);
    while (atomic_load_explicit(&j->arrived, memory_order_acquire) < j->threads) {
        if (atomic_load_explicit(&j->abandoned, memory_order_relaxed)) return NULL;
        if (++looks % 1000 == 0) sched_yield(); /* there may be more threads than processors */
    }
    m->start = seconds();
    for (int i = 0; i < j->repeats; i++) {
        m->sum = once(j, first, last);
        __asm__ volatile("" ::: "memory"); /* a repeat is not to be merged with the next */
    }
    m->end = seconds();
    return NULL;
}

/* Seconds of one repeat: from when the threads have met until the last is done, divided by the repeats. */
static double run(struct job *j, int64_t bytes, double *sum) {
    if (bytes < 0 || bytes % 4 || j->threads < 1 || j->threads > MAX_THREADS || j->repeats < 1) return -1;
    struct member *members = calloc((size_t)j->threads, sizeof *members);
    if (!members) return -1;
    const char *name;
    int started = 1;
    j->count = bytes / 4;
    j->body = body_for(&name);
    for (int i = 0; i < j->threads; i++) members[i].job = j, members[i].index = i;
    while (started < j->threads && !pthread_create(&members[started].thread, NULL, work, &members[started])) started++;
    if (started < j->threads) atomic_store(&j->abandoned, 1);
    else work(&members[0]);
    for (int i = 1; i < started; i++) pthread_join(members[i].thread, NULL);
    double start = members[0].start, end = members[0].end, total = 0;
    for (int i = 0; i < j->threads; i++) {
        if (members[i].start < start) start = members[i].start;
        if (members[i].end > end) end = members[i].end;
        total += members[i].sum;
    }
    free(members);
    if (sum) *sum = total;
    return started < j->threads ? -1 : (end - start) / j->repeats;
}

double lnb_probe_copy(void *dst, const void *src, int64_t bytes, int threads, int style, int repeats) {
    struct job j = {.dst = dst, .a = src, .threads = threads, .style = style & 3, .repeats = repeats};
    return dst && src ? run(&j, bytes, NULL) : -1;
}

double lnb_probe_triad(void *dst, const void *a, const void *b, int64_t bytes, int threads, int style, int repeats) {
    struct job j = {.dst = dst, .a = a, .b = b, .threads = threads, .style = style & 3, .repeats = repeats};
    return dst && a && b ? run(&j, bytes, NULL) : -1;
}

double lnb_probe_read(double *sum, const void *a, int64_t bytes, int threads, int style, int repeats) {
    struct job j = {.a = a, .threads = threads, .style = style & 3, .repeats = repeats};
    return a && sum ? run(&j, bytes, sum) : -1;
}
