/* float32 arithmetic on AVX2 with FMA and F16C. */
#include <immintrin.h>

typedef float real;
typedef __m256 vec;
#define LANES 8

INLINE vec v_zero(void) { return _mm256_setzero_ps(); }
INLINE vec v_set1(real r) { return _mm256_set1_ps(r); }
INLINE vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
INLINE vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
INLINE vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
INLINE vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vec v_fms(vec a, vec b, vec c) { return _mm256_fmsub_ps(a, b, c); }
INLINE void v_fence(void) { _mm_sfence(); }

INLINE __m256i first_lanes(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE vec v_first(vec v, int64_t n) { return _mm256_and_ps(v, _mm256_castsi256_ps(first_lanes(n))); }

/* Lanes of the four vectors are brought together, so that one addition serves all of them. */
INLINE void v_sum4(const vec v[4], double sums[4]) {
    vec ab = _mm256_add_ps(_mm256_unpacklo_ps(v[0], v[1]), _mm256_unpackhi_ps(v[0], v[1]));
    vec cd = _mm256_add_ps(_mm256_unpacklo_ps(v[2], v[3]), _mm256_unpackhi_ps(v[2], v[3]));
    vec abcd = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(abcd)), high = _mm256_cvtps_pd(_mm256_extractf128_ps(abcd, 1));
    _mm256_storeu_pd(sums, _mm256_add_pd(low, high));
}

INLINE vec widen(__m128i h, int t) {
    if (t == LNB_F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

INLINE __m128i narrow(vec v, int t) {
    if (t == LNB_F16) return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256i bits = _mm256_castps_si256(v);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    sum = _mm256_srli_epi32(_mm256_blendv_epi8(sum, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
}

INLINE vec v_load(const void *p, int64_t i, int t) {
    if (t == LNB_F32) return _mm256_loadu_ps((const float *)p + i);
    return widen(_mm_loadu_si128((const __m128i *)(const void *)((const uint16_t *)p + i)), t);
}

INLINE vec v_load_some(const void *p, int64_t i, int64_t n, int t) {
    if (t == LNB_F32) return _mm256_maskload_ps((const float *)p + i, first_lanes(n));
    uint16_t h[LANES] = {0};
    for (int64_t k = 0; k < n; k++) h[k] = ((const uint16_t *)p)[i + k];
    return widen(_mm_loadu_si128((const __m128i *)(const void *)h), t);
}

INLINE void v_store(void *p, int64_t i, vec v, int t) {
    if (t == LNB_F32) _mm256_storeu_ps((float *)p + i, v);
    else _mm_storeu_si128((__m128i *)(void *)((uint16_t *)p + i), narrow(v, t));
}

INLINE void v_store_some(void *p, int64_t i, int64_t n, vec v, int t) {
    if (t == LNB_F32) {
        _mm256_maskstore_ps((float *)p + i, first_lanes(n), v);
        return;
    }
    uint16_t h[LANES];
    _mm_storeu_si128((__m128i *)(void *)h, narrow(v, t));
    for (int64_t k = 0; k < n; k++) ((uint16_t *)p)[i + k] = h[k];
}

INLINE void v_stream(void *p, int64_t i, vec v, int t) {
    if (t == LNB_F32) _mm256_stream_ps((float *)p + i, v);
    else _mm_stream_si128((__m128i *)(void *)((uint16_t *)p + i), narrow(v, t));
}
