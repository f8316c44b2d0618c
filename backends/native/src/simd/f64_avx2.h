/* float64 arithmetic on AVX2 with FMA. Only float64 arrays are read and written. */
#include <immintrin.h>

typedef double real;
typedef __m256d vec;
#define LANES 4

INLINE vec v_zero(void) { return _mm256_setzero_pd(); }
INLINE vec v_set1(real r) { return _mm256_set1_pd(r); }
INLINE vec v_add(vec a, vec b) { return _mm256_add_pd(a, b); }
INLINE vec v_sub(vec a, vec b) { return _mm256_sub_pd(a, b); }
INLINE vec v_mul(vec a, vec b) { return _mm256_mul_pd(a, b); }
INLINE vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_pd(a, b, c); }
INLINE vec v_fms(vec a, vec b, vec c) { return _mm256_fmsub_pd(a, b, c); }
INLINE void v_fence(void) { _mm_sfence(); }

INLINE __m256i first_lanes(int64_t n) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
INLINE vec v_first(vec v, int64_t n) { return _mm256_and_pd(v, _mm256_castsi256_pd(first_lanes(n))); }

/* Lanes of the four vectors are brought together, so that one addition serves all of them. */
INLINE void v_sum4(const vec v[4], double sums[4]) {
    __m256d a = v[0], b = v[1], c = v[2], d = v[3];
    __m256d ab = _mm256_add_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
    __m256d cd = _mm256_add_pd(_mm256_unpacklo_pd(c, d), _mm256_unpackhi_pd(c, d));
    __m256d low = _mm256_permute2f128_pd(ab, cd, 0x20), high = _mm256_permute2f128_pd(ab, cd, 0x31);
    _mm256_storeu_pd(sums, _mm256_add_pd(low, high));
}

INLINE vec v_load(const void *p, int64_t i, int t) {
    (void)t;
    return _mm256_loadu_pd((const double *)p + i);
}

INLINE vec v_load_some(const void *p, int64_t i, int64_t n, int t) {
    (void)t;
    return _mm256_maskload_pd((const double *)p + i, first_lanes(n));
}

INLINE void v_store(void *p, int64_t i, vec v, int t) {
    (void)t;
    _mm256_storeu_pd((double *)p + i, v);
}

INLINE void v_store_some(void *p, int64_t i, int64_t n, vec v, int t) {
    (void)t;
    _mm256_maskstore_pd((double *)p + i, first_lanes(n), v);
}

INLINE void v_stream(void *p, int64_t i, vec v, int t) {
    (void)t;
    _mm256_stream_pd((double *)p + i, v);
}
