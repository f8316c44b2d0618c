/* One lane: the kernels read as plain C, float32 or float64. There is no fused multiply-add to rely on. */

#if LNB_REAL == 32
typedef float real;
#else
typedef double real;
#endif
typedef real vec;
#define LANES 1

INLINE vec v_zero(void) { return 0; }
INLINE vec v_set1(real r) { return r; }
INLINE vec v_add(vec a, vec b) { return a + b; }
INLINE vec v_sub(vec a, vec b) { return a - b; }
INLINE vec v_mul(vec a, vec b) { return a * b; }
INLINE vec v_fma(vec a, vec b, vec c) { return a * b + c; }
INLINE vec v_fms(vec a, vec b, vec c) { return a * b - c; }

INLINE void v_sum4(const vec v[4], double sums[4]) {
    for (int i = 0; i < 4; i++) sums[i] = v[i];
}

INLINE vec v_first(vec v, int64_t n) { return n ? v : 0; }
INLINE void v_fence(void) {}

#if LNB_REAL == 32
INLINE float from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

INLINE uint32_t to_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* The exponent is moved by a multiplication, which also normalizes subnormal numbers. */
INLINE float from_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    if (rest >= 0x0f800000) return from_bits(sign | rest | 0x7f800000); /* infinity or NaN */
    return from_bits(sign | to_bits(from_bits(rest) * 0x1p112f));
}

INLINE uint16_t to_f16(float f) {
    uint32_t bits = to_bits(f), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (rest >> 13 & 0x3ff));
    if (rest >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and above round to infinity */
    if (rest < 0x38800000) {                                  /* adding 0.5 rounds to a multiple of 2^-24 */
        return (uint16_t)(sign | (to_bits(from_bits(rest) + 0.5f) - 0x3f000000));
    }
    return (uint16_t)(sign | ((rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13));
}

INLINE uint16_t to_bf16(float f) {
    uint32_t bits = to_bits(f);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)((bits | 0x400000) >> 16);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

INLINE vec v_load(const void *p, int64_t i, int t) {
    if (t == LNB_F32) return ((const float *)p)[i];
    uint16_t h = ((const uint16_t *)p)[i];
    return t == LNB_F16 ? from_f16(h) : from_bits((uint32_t)h << 16);
}

INLINE void v_store(void *p, int64_t i, vec v, int t) {
    if (t == LNB_F32) ((float *)p)[i] = v;
    else ((uint16_t *)p)[i] = t == LNB_F16 ? to_f16(v) : to_bf16(v);
}
#else
INLINE vec v_load(const void *p, int64_t i, int t) {
    (void)t;
    return ((const double *)p)[i];
}

INLINE void v_store(void *p, int64_t i, vec v, int t) {
    (void)t;
    ((double *)p)[i] = v;
}
#endif

INLINE vec v_load_some(const void *p, int64_t i, int64_t n, int t) { return n ? v_load(p, i, t) : 0; }

INLINE void v_store_some(void *p, int64_t i, int64_t n, vec v, int t) {
    if (n) v_store(p, i, v, t);
}

INLINE void v_stream(void *p, int64_t i, vec v, int t) { v_store(p, i, v, t); }
