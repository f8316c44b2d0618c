/*
 * The vector operations that the kernels are written in. A target and a computing type (LNB_REAL, 32 or 64)
 * choose the header, which defines
 *
 *     real, vec, LANES                 the computing type, a vector of it, its length
 *     v_zero() v_set1(r)
 *     v_add v_sub v_mul                each rounded on its own
 *     v_fma(a, b, c) v_fms(a, b, c)    a*b + c and a*b - c, rounded once (on targets that can)
 *     v_sum4(v, sums)                  sums of the lanes of four vectors, as doubles
 *     v_first(v, n)                    the first n lanes, zero in the others
 *     v_load v_load_some(p, i, n, t)   lanes from element i on of an array of type t; n < LANES: zero in the others
 *     v_store v_store_some v_stream    v_stream: non-temporal, its address aligned to the bytes written
 *     v_store_two v_stream_two(p, i, low, high, t)
 *                                      two vectors, one after the other; V_WRITES_TWO(t): that saves something
 *     V_DOTS(t)                        elements of type t can be multiplied and added up as they are; then
 *     halves v_one_halves()            twice LANES of them, and as many ones
 *     v_load_halves(p, i, n)           n of them, zero in the others
 *     v_dot(s, a, b)                   s and the products of two neighbours; subnormal numbers count as zero
 *     v_fence()                        orders non-temporal stores before what follows
 *
 * `t` is always a compile-time constant, so that the choice of conversion costs nothing at run time.
 */
#ifndef LNB_SIMD_H
#define LNB_SIMD_H

#include <stdint.h>
#include <string.h>

#include "lnbench.h"

/* The kernels are specialised by inlining constants into them. Builds with sanitizers skip that: it takes minutes. */
#ifdef LNB_PLAIN_INLINE
#define INLINE static inline
#else
#define INLINE static inline __attribute__((always_inline))
#endif


#if LNB_TARGET_AVX512 || LNB_TARGET_AVX512_BF16
#if LNB_REAL == 32
#include "f32_avx512.h"
#else
#include "f64_avx512.h"
#endif
#elif LNB_TARGET_AVX2
#if LNB_REAL == 32
#include "f32_avx2.h"
#else
#include "f64_avx2.h"
#endif
#elif LNB_TARGET_NEON
#if LNB_REAL == 32
#include "f32_neon.h"
#else
#include "f64_neon.h"
#endif
#else
#include "baseline.h"
#endif

/* The first n lanes, where n may be all of them. */
INLINE vec v_load_lanes(const void *p, int64_t i, int64_t n, int t) {
    return n == LANES ? v_load(p, i, t) : v_load_some(p, i, n, t);
}

INLINE vec v_first_lanes(vec v, int64_t n) { return n == LANES ? v : v_first(v, n); }

INLINE void v_store_lanes(void *p, int64_t i, int64_t n, vec v, int t) {
    if (n == LANES) v_store(p, i, v, t);
    else v_store_some(p, i, n, v, t);
}

#ifndef V_DOTS
#define V_DOTS(t) ((void)(t), 0)
typedef vec halves;
INLINE halves v_one_halves(void) { return v_zero(); }

INLINE halves v_load_halves(const void *p, int64_t i, int64_t n) {
    (void)p;
    (void)i;
    (void)n;
    return v_zero();
}

INLINE vec v_dot(vec s, halves a, halves b) {
    (void)a;
    (void)b;
    return s;
}
#endif

#ifndef V_WRITES_TWO
#define V_WRITES_TWO(t) 0

INLINE void v_store_two(void *p, int64_t i, vec low, vec high, int t) {
    v_store(p, i, low, t);
    v_store(p, i + LANES, high, t);
}

INLINE void v_stream_two(void *p, int64_t i, vec low, vec high, int t) {
    v_stream(p, i, low, t);
    v_stream(p, i + LANES, high, t);
}
#endif

#endif
