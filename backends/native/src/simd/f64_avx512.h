/* float64 arithmetic on AVX-512. Only float64 arrays are read and written. */
#include <immintrin.h>

typedef double real;
typedef __m512d vec;
#define LANES 8

INLINE vec v_zero(void) { return _mm512_setzero_pd(); }
INLINE vec v_set1(real r) { return _mm512_set1_pd(r); }
INLINE vec v_add(vec a, vec b) { return _mm512_add_pd(a, b); }
INLINE vec v_sub(vec a, vec b) { return _mm512_sub_pd(a, b); }
INLINE vec v_mul(vec a, vec b) { return _mm512_mul_pd(a, b); }
INLINE vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_pd(a, b, c); }
INLINE vec v_fms(vec a, vec b, vec c) { return _mm512_fmsub_pd(a, b, c); }
INLINE void v_fence(void) { _mm_sfence(); }

INLINE __mmask8 first_lanes(int64_t n) { return (__mmask8)((1u << n) - 1u); }
INLINE vec v_first(vec v, int64_t n) { return _mm512_maskz_mov_pd(first_lanes(n), v); }

INLINE __m256d fold(vec v) { return _mm256_add_pd(_mm512_castpd512_pd256(v), _mm512_extractf64x4_pd(v, 1)); }

/* Lanes of the four vectors are brought together, so that one addition serves all of them. */
INLINE void v_sum4(const vec v[4], double sums[4]) {
    __m256d a = fold(v[0]), b = fold(v[1]), c = fold(v[2]), d = fold(v[3]);
    __m256d ab = _mm256_add_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
    __m256d cd = _mm256_add_pd(_mm256_unpacklo_pd(c, d), _mm256_unpackhi_pd(c, d));
    __m256d low = _mm256_permute2f128_pd(ab, cd, 0x20), high = _mm256_permute2f128_pd(ab, cd, 0x31);
    _mm256_storeu_pd(sums, _mm256_add_pd(low, high));
}

INLINE vec v_load(const void *p, int64_t i, int t) {
    (void)t;
    return _mm512_loadu_pd((const double *)p + i);
}

INLINE vec v_load_some(const void *p, int64_t i, int64_t n, int t) {
    (void)t;
    return _mm512_maskz_loadu_pd(first_lanes(n), (const double *)p + i);
}

INLINE void v_store(void *p, int64_t i, vec v, int t) {
    (void)t;
    _mm512_storeu_pd((double *)p + i, v);
}

INLINE void v_store_some(void *p, int64_t i, int64_t n, vec v, int t) {
    (void)t;
    _mm512_mask_storeu_pd((double *)p + i, first_lanes(n), v);
}

INLINE void v_stream(void *p, int64_t i, vec v, int t) {
    (void)t;
    _mm512_stream_pd((double *)p + i, v);
}
