/* float64 arithmetic on AArch64 Advanced SIMD. Only float64 arrays are read and written. */
#include <arm_neon.h>

typedef double real;
typedef float64x2_t vec;
#define LANES 2

INLINE vec v_zero(void) { return vdupq_n_f64(0); }
INLINE vec v_set1(real r) { return vdupq_n_f64(r); }
INLINE vec v_add(vec a, vec b) { return vaddq_f64(a, b); }
INLINE vec v_sub(vec a, vec b) { return vsubq_f64(a, b); }
INLINE vec v_mul(vec a, vec b) { return vmulq_f64(a, b); }
INLINE vec v_fma(vec a, vec b, vec c) { return vfmaq_f64(c, a, b); }
INLINE vec v_fms(vec a, vec b, vec c) { return vnegq_f64(vfmsq_f64(c, a, b)); }
INLINE void v_fence(void) {}

INLINE void v_sum4(const vec v[4], double sums[4]) {
    for (int i = 0; i < 4; i++) sums[i] = vaddvq_f64(v[i]);
}

/* Fewer than two lanes are none or one. */
INLINE vec v_first(vec v, int64_t n) {
    return n ? vcombine_f64(vget_low_f64(v), vdup_n_f64(0)) : v_zero();
}

INLINE vec v_load(const void *p, int64_t i, int t) {
    (void)t;
    return vld1q_f64((const double *)p + i);
}

INLINE vec v_load_some(const void *p, int64_t i, int64_t n, int t) {
    (void)t;
    return n ? vcombine_f64(vld1_f64((const double *)p + i), vdup_n_f64(0)) : v_zero();
}

INLINE void v_store(void *p, int64_t i, vec v, int t) {
    (void)t;
    vst1q_f64((double *)p + i, v);
}

INLINE void v_store_some(void *p, int64_t i, int64_t n, vec v, int t) {
    (void)t;
    if (n) vst1_f64((double *)p + i, vget_low_f64(v));
}

INLINE void v_stream(void *p, int64_t i, vec v, int t) { v_store(p, i, v, t); }
