/* float32 arithmetic on AVX-512 (F, BW, VL, DQ). */
#include <immintrin.h>

typedef float real;
typedef __m512 vec;
#define LANES 16

INLINE vec v_zero(void) { return _mm512_setzero_ps(); }
INLINE vec v_set1(real r) { return _mm512_set1_ps(r); }
INLINE vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
INLINE vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
INLINE vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
INLINE vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vec v_fms(vec a, vec b, vec c) { return _mm512_fmsub_ps(a, b, c); }
INLINE void v_fence(void) { _mm_sfence(); }

INLINE __mmask16 first_lanes(int64_t n) { return (__mmask16)((1u << n) - 1u); }
INLINE vec v_first(vec v, int64_t n) { return _mm512_maskz_mov_ps(first_lanes(n), v); }

INLINE __m256 fold(vec v) { return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)); }

/* Lanes of the four vectors are brought together, so that one addition serves all of them. */
INLINE void v_sum4(const vec v[4], double sums[4]) {
    __m256 a = fold(v[0]), b = fold(v[1]), c = fold(v[2]), d = fold(v[3]);
    __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    __m256 abcd = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(abcd)), high = _mm256_cvtps_pd(_mm256_extractf128_ps(abcd, 1));
    _mm256_storeu_pd(sums, _mm256_add_pd(low, high));
}

INLINE vec widen(__m256i h, int t) {
    if (t == LNB_F16) return _mm512_cvtph_ps(h);
    /* The upper half of lane i is element i: one shuffle, where widening and shifting are two operations. */
    const __m512i place = _mm512_set_epi16(15, 0, 14, 0, 13, 0, 12, 0, 11, 0, 10, 0, 9, 0, 8, 0, 7, 0, 6, 0, 5, 0, 4, 0,
                                           3, 0, 2, 0, 1, 0, 0, 0);
    return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, place, _mm512_castsi256_si512(h)));
}

INLINE __mmask16 subnormals(vec v) { return _mm512_fpclass_ps_mask(v, 0x20); }

/* Round to nearest even. The instruction for bfloat16 does so too, but takes subnormal numbers for zero. */
INLINE __m256i narrow(vec v, int t) {
    if (t == LNB_F16) return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#ifdef __AVX512BF16__
    if (__builtin_expect(!subnormals(v), 1)) return (__m256i)_mm512_cvtneps_pbh(v);
#endif
    __m512i bits = _mm512_castps_si512(v);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    sum = _mm512_mask_or_epi32(sum, nan, bits, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(sum, 16));
}

/* Two vectors, as one of twice as many halves. A zero may have been a subnormal number: zeros are seen in one operation. */
INLINE __m512i narrow_two(vec low, vec high, int t) {
#ifdef __AVX512BF16__
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    __mmask32 zeros = _mm512_testn_epi16_mask(both, _mm512_set1_epi16(0x7fff));
    if (t == LNB_BF16 && (__builtin_expect(!zeros, 1) || !(subnormals(low) | subnormals(high)))) return both;
#endif
    return _mm512_inserti64x4(_mm512_castsi256_si512(narrow(low, t)), narrow(high, t), 1);
}

INLINE vec v_load(const void *p, int64_t i, int t) {
    if (t == LNB_F32) return _mm512_loadu_ps((const float *)p + i);
    return widen(_mm256_loadu_si256((const __m256i *)(const void *)((const uint16_t *)p + i)), t);
}

INLINE vec v_load_some(const void *p, int64_t i, int64_t n, int t) {
    __mmask16 m = first_lanes(n);
    if (t == LNB_F32) return _mm512_maskz_loadu_ps(m, (const float *)p + i);
    return widen(_mm256_maskz_loadu_epi16(m, (const uint16_t *)p + i), t);
}

INLINE void v_store(void *p, int64_t i, vec v, int t) {
    if (t == LNB_F32) _mm512_storeu_ps((float *)p + i, v);
    else _mm256_storeu_si256((__m256i *)(void *)((uint16_t *)p + i), narrow(v, t));
}

INLINE void v_store_some(void *p, int64_t i, int64_t n, vec v, int t) {
    __mmask16 m = first_lanes(n);
    if (t == LNB_F32) _mm512_mask_storeu_ps((float *)p + i, m, v);
    else _mm256_mask_storeu_epi16((uint16_t *)p + i, m, narrow(v, t));
}

INLINE void v_stream(void *p, int64_t i, vec v, int t) {
    if (t == LNB_F32) _mm512_stream_ps((float *)p + i, v);
    else _mm256_stream_si256((__m256i *)(void *)((uint16_t *)p + i), narrow(v, t));
}

#ifdef __AVX512BF16__
#define V_DOTS(t) ((t) == LNB_BF16)
typedef __m512i halves;

INLINE halves v_one_halves(void) { return _mm512_set1_epi16(0x3f80); }

INLINE halves v_load_halves(const void *p, int64_t i, int64_t n) {
    const uint16_t *from = (const uint16_t *)p + i;
    return n == 2 * LANES ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi16((__mmask32)((1u << n) - 1u), from);
}

INLINE vec v_dot(vec s, halves a, halves b) { return _mm512_dpbf16_ps(s, (__m512bh)a, (__m512bh)b); }
#endif

/* float16 gains nothing: its two narrow vectors would have to be joined. */
#define V_WRITES_TWO(t) ((t) == LNB_BF16)

INLINE void v_store_two(void *p, int64_t i, vec low, vec high, int t) {
    _mm512_storeu_si512((uint16_t *)p + i, narrow_two(low, high, t));
}

INLINE void v_stream_two(void *p, int64_t i, vec low, vec high, int t) {
    _mm512_stream_si512((void *)((uint16_t *)p + i), narrow_two(low, high, t));
}
