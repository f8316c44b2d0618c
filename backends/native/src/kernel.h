/* What the kernels of forward and backward share beside the statistics: rows in pairs, parameters, scales, lines. */
#ifndef LNB_KERNEL_H
#define LNB_KERNEL_H

#include "kernels.h"
#include "simd/simd.h"

enum { PAIR = 2 }; /* rows that share a loop */

/* Does something for each row of a pair, written out: a loop could leave sums in memory instead of registers. */
#define EACH(rows, ...)                                                                                                \
    do {                                                                                                               \
        { enum { r = 0 }; __VA_ARGS__ }                                                                                \
        if ((rows) > 1) { enum { r = 1 }; __VA_ARGS__ }                                                                \
    } while (0)

_Static_assert(PAIR == 2, "EACH has two rows");

/* The types of data, and of gamma and beta, that a target computes in this computing type: do(name, type, affine). */
#define FOR_BF16(do) do(bf16, LNB_BF16, LNB_BF16) do(bf16_f32, LNB_BF16, LNB_F32)
#if LNB_REAL == 64
#define FOR_TYPES(do) do(f64, LNB_F64, LNB_F64)
#elif LNB_TARGET_AVX512_BF16 /* which differs from avx512 for these alone */
#define FOR_TYPES(do) FOR_BF16(do)
#else
#define FOR_TYPES(do) FOR_BF16(do) do(f32, LNB_F32, LNB_F32) do(f16, LNB_F16, LNB_F16) do(f16_f32, LNB_F16, LNB_F32)
#endif

/*
 * What is known of one row: mean = hi + lo, and for backward the means of g and of g * xhat. `centred`: see row_stat_of;
 * hi is 0 then.
 */
typedef struct {
    real hi, lo, rstd, mean_g, mean_gx;
    int centred;
} row_stat;

_Static_assert(sizeof(row_stat) <= LNB_ROW_DOUBLES * sizeof(double), "a row_stat fits in the workspace");

INLINE int64_t size_of(int t) { return t == LNB_F64 ? 8 : t == LNB_F32 ? 4 : 2; }
INLINE int is_half(int t) { return size_of(t) == 2; }
INLINE const void *at(const void *p, int64_t i, int t) { return (const char *)p + i * size_of(t); }
INLINE void *at_out(void *p, int64_t i, int t) { return (char *)p + i * size_of(t); }
INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Pairs of rows that make up so many bytes, in rows. */
INLINE int64_t pairs_of(int64_t bytes, int64_t row_bytes) { return PAIR * ((bytes - 1) / (PAIR * row_bytes) + 1); }

/*
 * gamma or beta as an address and a mask for the column: an absent one is a vector of ones or zeros that is
 * read again and again, which needs no second version of the loops and changes no bit.
 */
typedef struct {
    const void *p;
    int64_t mask;
} param;

INLINE param param_of(const void *given, int one, int t) {
    static const float f32[2][16] = {{0}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}};
    static const double f64[2][8] = {{0}, {1, 1, 1, 1, 1, 1, 1, 1}};
#define EIGHT(h) h, h, h, h, h, h, h, h
    static const uint16_t f16[2][16] = {{0}, {EIGHT(0x3c00), EIGHT(0x3c00)}};
    static const uint16_t bf16[2][16] = {{0}, {EIGHT(0x3f80), EIGHT(0x3f80)}};
#undef EIGHT
    if (given) return (param){given, -1};
    if (t == LNB_F32) return (param){f32[one], 0};
    if (t == LNB_F64) return (param){f64[one], 0};
    return (param){t == LNB_F16 ? f16[one] : bf16[one], 0};
}

INLINE vec load_param(param q, int64_t j, int t) { return v_load(q.p, j & q.mask, t); }
INLINE vec load_param_lanes(param q, int64_t j, int64_t n, int t) { return v_load_lanes(q.p, j & q.mask, n, t); }

/* A row_stat as vectors: xhat = (x - hi) * rstd + shift. */
typedef struct {
    vec hi, rstd, shift;
} scale;

INLINE scale scale_of(const row_stat *s) {
    return (scale){v_set1(s->hi), v_set1(s->rstd), v_set1(-(s->lo * s->rstd))};
}

INLINE vec normalized(scale s, vec x, int centred) { return v_fma(centred ? x : v_sub(x, s.hi), s.rstd, s.shift); }

/* Elements before the first 64-byte line of a row of output that is long enough for it to matter. */
INLINE int64_t elements_to_line(const void *p, int64_t n, int t) {
    if (LANES == 1 || n < 8 * LANES) return 0; /* calls that stream have longer rows */
    return (int64_t)(-(uintptr_t)p & 63) / size_of(t);
}

/* Into the second-level cache: the first has no room for what is needed later. */
INLINE void prefetch(const void *p, int64_t bytes) {
    for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch((const char *)p + b, 0, 2);
}

#endif
