/* float32 arithmetic on AArch64 Advanced SIMD. */
#include <arm_neon.h>

typedef float real;
typedef float32x4_t vec;
#define LANES 4

INLINE vec v_zero(void) { return vdupq_n_f32(0); }
INLINE vec v_set1(real r) { return vdupq_n_f32(r); }
INLINE vec v_add(vec a, vec b) { return vaddq_f32(a, b); }
INLINE vec v_sub(vec a, vec b) { return vsubq_f32(a, b); }
INLINE vec v_mul(vec a, vec b) { return vmulq_f32(a, b); }
INLINE vec v_fma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
INLINE vec v_fms(vec a, vec b, vec c) { return vnegq_f32(vfmsq_f32(c, a, b)); }
INLINE void v_fence(void) {}

INLINE vec v_first(vec v, int64_t n) {
    static const uint32_t index[LANES] = {0, 1, 2, 3};
    uint32x4_t keep = vcltq_u32(vld1q_u32(index), vdupq_n_u32((uint32_t)n));
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), keep));
}

INLINE void v_sum4(const vec v[4], double sums[4]) {
    for (int i = 0; i < 4; i++) {
        sums[i] = vaddvq_f64(vaddq_f64(vcvt_f64_f32(vget_low_f32(v[i])), vcvt_f64_f32(vget_high_f32(v[i]))));
    }
}

INLINE vec widen(uint16x4_t h, int t) {
    if (t == LNB_F16) return vcvt_f32_f16(vreinterpret_f16_u16(h));
    return vreinterpretq_f32_u32(vshll_n_u16(h, 16));
}

INLINE uint16x4_t narrow(vec v, int t) {
    if (t == LNB_F16) return vreinterpret_u16_f16(vcvt_f16_f32(v));
    uint32x4_t bits = vreinterpretq_u32_f32(v);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    uint32x4_t sum = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(v, v), sum, quiet), 16);
}

INLINE vec v_load(const void *p, int64_t i, int t) {
    if (t == LNB_F32) return vld1q_f32((const float *)p + i);
    return widen(vld1_u16((const uint16_t *)p + i), t);
}

INLINE vec v_load_some(const void *p, int64_t i, int64_t n, int t) {
    if (t == LNB_F32) {
        float f[LANES] = {0};
        for (int64_t k = 0; k < n; k++) f[k] = ((const float *)p)[i + k];
        return vld1q_f32(f);
    }
    uint16_t h[LANES] = {0};
    for (int64_t k = 0; k < n; k++) h[k] = ((const uint16_t *)p)[i + k];
    return widen(vld1_u16(h), t);
}

INLINE void v_store(void *p, int64_t i, vec v, int t) {
    if (t == LNB_F32) vst1q_f32((float *)p + i, v);
    else vst1_u16((uint16_t *)p + i, narrow(v, t));
}

INLINE void v_store_some(void *p, int64_t i, int64_t n, vec v, int t) {
    if (t == LNB_F32) {
        float f[LANES];
        vst1q_f32(f, v);
        for (int64_t k = 0; k < n; k++) ((float *)p)[i + k] = f[k];
        return;
    }
    uint16_t h[LANES];
    vst1_u16(h, narrow(v, t));
    for (int64_t k = 0; k < n; k++) ((uint16_t *)p)[i + k] = h[k];
}

/* There is no intrinsic for a non-temporal store; ordinary stores with hardware write streaming serve. */
INLINE void v_stream(void *p, int64_t i, vec v, int t) { v_store(p, i, v, t); }
