/*
 * The mean and the variance of rows. Compiled, as all of the kernels, once per target and computing type.
 *
 * A row is read once. The pilot k is the mean of its first elements, rounded to the computing type, or 0
 * where that mean is less than their standard deviation and there is no offset to remove. From it d = x - k is
 * formed for the whole row, and s1 = sum(d), s2 = sum(d^2) give
 *
 *     mean = k + s1/n          var = s2/n - (s1/n)^2
 *
 * This is the one-pass formula on data whose offset is already removed. With u the unit roundoff and A the longest
 * chain of additions (64: vectors are added in chunks, chunks in compensated double), the variance is off by about
 * A u (1 + q) of itself, q = (mean - k)^2 / var, and the mean by A u mean|d|: for data with an offset the row is in effect
 * summed twice, as in the corrected two-pass algorithm. For rows of independent elements q is about 1/(length of
 * the pilot) or at most 1. A pilot that does not represent its row (a step after the first elements) is seen
 * afterwards, as q > 4, and the sums are formed again with k = mean; q is then 0. Why not E[x^2] - E[x]^2: there k = 0
 * always and q = (mean/std)^2. Why not k = x[0]: x[0] may be a spike, and then mean|d| is far above mean|x|. The pilot
 * is 0 there, since a spike makes the standard deviation large. Sums that overflow are formed again in double.
 *
 * A row of equal elements has k = x and d = 0 exactly when k is exact (small integers): variance 0, y = beta.
 *
 * The mean is kept as hi + lo, so xhat = (x - hi) * rstd - lo * rstd: x - hi is exact where cancellation is strong,
 * and lo enters by a fused multiply-add that is needed anyhow. rstd comes from a double square root and
 * division, never from an estimate.
 *
 * Rows of half types, whose cost is arithmetic, save what they do not need. Where k = 0 nothing is subtracted, and targets that
 * can (V_DOTS) add up the elements as they are, two to a lane. Where |mean| is at most the deviation (`centred`), hi = 0:
 * x * rstd - mean * rstd then adds an error of about u |mean| rstd to one of A u mean|x| rstd that the mean itself has.
 *
 * Order of summation. Within a chunk of columns lane l of accumulator a gets the vectors with index a modulo the
 * number of accumulators; a tail shorter than a vector counts as a vector filled with zeros. Chunk sums are added
 * in order. Nothing here depends on threads, addresses, strides or other rows, so neither do the bits.
 */
#ifndef LNB_STATISTICS_H
#define LNB_STATISTICS_H

#include <math.h>

#include "kernel.h"

#define LIKELY(c) __builtin_expect(!!(c), 1)
#define NOINLINE static __attribute__((noinline))

enum { PILOT_VECTORS = LANES == 1 ? 32 : LANES == 16 ? 4 : 8 };

/* A sum in double whose rounding errors are summed too. */
typedef struct {
    double hi, lo;
} wide;

INLINE wide wide_add(wide a, double b) {
    double s = a.hi + b, t = s - a.hi;
    return (wide){s, a.lo + ((a.hi - (s - t)) + (b - t))};
}

INLINE double wide_value(wide a) { return isfinite(a.hi) ? a.hi + a.lo : a.hi; }

/* Beside float32 a product with 1/n in double is as good as the quotient, and sooner there. */
INLINE double mean_of(double sum, int64_t n) {
    return LNB_REAL == 32 ? sum * (1 / (double)n) : sum / (double)n;
}

/* Sums of the first elements of a row and of their squares. */
INLINE void pilot_sums(const void *x, int64_t n, int t, vec sums[2]) {
    enum { CHAINS = 4 };
    vec s[CHAINS] = {v_zero(), v_zero(), v_zero(), v_zero()}, q[CHAINS] = {v_zero(), v_zero(), v_zero(), v_zero()};
    if (n >= PILOT_VECTORS * LANES) {
        for (int i = 0; i < PILOT_VECTORS; i += CHAINS) {
            for (int c = 0; c < CHAINS; c++) {
                vec v = v_load(x, (i + c) * LANES, t);
                s[c] = i ? v_add(s[c], v) : v;
                q[c] = i ? v_fma(v, v, q[c]) : v_mul(v, v);
            }
        }
    } else {
        int64_t j = 0;
        for (; j + LANES <= n; j += LANES) {
            vec v = v_load(x, j, t);
            s[0] = v_add(s[0], v);
            q[0] = v_fma(v, v, q[0]);
        }
        if (j < n) {
            s[1] = v_load_some(x, j, n - j, t);
            q[1] = v_mul(s[1], s[1]);
        }
    }
    sums[0] = v_add(v_add(s[0], s[1]), v_add(s[2], s[3]));
    sums[1] = v_add(v_add(q[0], q[1]), v_add(q[2], q[3]));
}

/* Their mean, rounded; 0 when it is smaller than their standard deviation. */
INLINE real pilot_from(double sum, double squares, int64_t n) {
    n = least(n, PILOT_VECTORS * LANES);
    double mean = mean_of(sum, n);
    return 2 * mean * mean > mean_of(squares, n) ? (real)mean : 0;
}

INLINE real pilot_of(const void *x, int64_t n, int t) {
    vec v[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
    double sums[4];
    pilot_sums(x, n, t, v);
    v_sum4(v, sums);
    return pilot_from(sums[0], sums[1], n);
}

/* Vector sums of one chunk of one row around k. */
typedef struct {
    vec first[2], second[2];
} moments;

INLINE moments moments_zero(void) { return (moments){{v_zero(), v_zero()}, {v_zero(), v_zero()}}; }

/* Whether a row is added up as it is. Known where loops are chosen, it is a constant (`raw`) where they are compiled. */
INLINE int is_raw(real k, int t) { return is_half(t) && k == 0; }

/* Columns that a chain takes at once. */
INLINE int64_t unit_of(int t, int raw) { return raw && V_DOTS(t) ? 2 * LANES : LANES; }

/* Adds n columns from j on to a chain, where n is at most a unit. */
INLINE void moments_add(moments *m, int chain, const void *x, vec k, int64_t j, int64_t n, int t, int raw) {
    if (raw && V_DOTS(t)) {
        halves h = v_load_halves(x, j, n);
        m->first[chain] = v_dot(m->first[chain], h, v_one_halves());
        m->second[chain] = v_dot(m->second[chain], h, h);
        return;
    }
    vec d = v_load_lanes(x, j, n, t);
    if (!raw) d = v_first_lanes(v_sub(d, k), n);
    m->first[chain] = v_add(m->first[chain], d);
    m->second[chain] = v_fma(d, d, m->second[chain]);
}

/* Adds columns [j, end): what is left of a chunk from an even unit on. */
INLINE void moments_rest(moments *m, const void *x, vec k, int64_t j, int64_t end, int t, int raw) {
    const int64_t unit = unit_of(t, raw);
    for (; j + 2 * unit <= end; j += 2 * unit) {
        moments_add(m, 0, x, k, j, unit, t, raw);
        moments_add(m, 1, x, k, j + unit, unit, t, raw);
    }
    if (j + unit <= end) {
        moments_add(m, 0, x, k, j, unit, t, raw);
        j += unit;
    }
    if (j < end) moments_add(m, 1, x, k, j, end - j, t, raw);
}

/* The same for any pilot. */
INLINE void moments_range(moments *m, const void *x, real k, int64_t j, int64_t end, int t) {
    if (is_raw(k, t)) moments_rest(m, x, v_zero(), j, end, t, 1);
    else moments_rest(m, x, v_set1(k), j, end, t, 0);
}

INLINE struct lnb_sums moments_value(const moments *m) {
    const vec v[4] = {v_add(m->first[0], m->first[1]), v_add(m->second[0], m->second[1]), v_zero(), v_zero()};
    double sums[4];
    v_sum4(v, sums);
    return (struct lnb_sums){sums[0], sums[1]};
}

/* Of both rows of a pair at once: the same bits for less. */
INLINE void moments_values(const moments m[PAIR], struct lnb_sums to[PAIR]) {
    const vec v[4] = {v_add(m[0].first[0], m[0].first[1]), v_add(m[0].second[0], m[0].second[1]),
                      v_add(m[1].first[0], m[1].first[1]), v_add(m[1].second[0], m[1].second[1])};
    double sums[4];
    v_sum4(v, sums);
    to[0] = (struct lnb_sums){sums[0], sums[1]};
    to[1] = (struct lnb_sums){sums[2], sums[3]};
}

/* Columns whose sums are formed in the computing type: 64 vectors in each of two chains. */
enum { CHUNK = LANES == 1 ? 32 : 128 * LANES };

/* A row on its way: its pilot and the sums of the chunks so far. */
typedef struct {
    real k;
    wide first, second;
} progress;

/* The first chunk is taken as it is: rows of one chunk are common, and a compensated addition takes long. */
INLINE void progress_add(progress *p, struct lnb_sums s, int first) {
    p->first = first ? (wide){s.first, 0} : wide_add(p->first, s.first);
    p->second = first ? (wide){s.second, 0} : wide_add(p->second, s.second);
}

/* Adds up the chunk that begins at column a. */
INLINE void sum_chunk(const void *x, int64_t n, int64_t a, progress *p, int t, int raw) {
    moments m = moments_zero();
    moments_rest(&m, x, v_set1(p->k), a, least(n, a + CHUNK), t, raw);
    progress_add(p, moments_value(&m), a == 0);
}

INLINE progress sum_row_as(const void *x, int64_t n, real k, int t, int raw) {
    progress p = {k, {0, 0}, {0, 0}};
    for (int64_t a = 0; a < n; a += CHUNK) sum_chunk(x, n, a, &p, t, raw);
    return p;
}

INLINE progress sum_row(const void *x, int64_t n, real k, int t) {
    return is_raw(k, t) ? sum_row_as(x, n, k, t, 1) : sum_row_as(x, n, k, t, 0);
}

/* Mean = k + delta, and variance. */
typedef struct {
    double k, delta, var;
} mean_var;

INLINE mean_var mean_var_of(const progress *p, int64_t n) {
    double delta = mean_of(wide_value(p->first), n);
    double var = mean_of(wide_value(p->second), n) - delta * delta;
    return (mean_var){(double)p->k, delta, var < 0 ? 0 : var};
}

/* Two passes in double, for sums that overflow the computing type and for rows with infinities. */
INLINE double element(const void *x, int64_t i, int t) {
    real first[LANES];
    v_store(first, 0, v_load_some(x, i, 1, t), LNB_REAL == 32 ? LNB_F32 : LNB_F64);
    return (double)first[0];
}

NOINLINE mean_var careful_mean_var(const void *x, int64_t n, int t) {
    wide s = {0, 0};
    for (int64_t i = 0; i < n; i++) s = wide_add(s, element(x, i, t));
    double mean = wide_value(s) / (double)n;
    s = (wide){0, 0};
    for (int64_t i = 0; i < n; i++) {
        double d = element(x, i, t) - mean;
        s = wide_add(s, d * d);
    }
    return (mean_var){mean, 0, wide_value(s) / (double)n};
}

NOINLINE mean_var repaired_mean_var(mean_var bad, const void *x, int64_t n, int t) {
    real k = (real)(bad.k + bad.delta);
    if (!isfinite(k) || !isfinite(bad.var)) return careful_mean_var(x, n, t);
    progress p = sum_row_as(x, n, k, t, 0);
    mean_var good = mean_var_of(&p, n);
    return isfinite(good.var) ? good : careful_mean_var(x, n, t);
}

/*
 * The operation behind V_DOTS takes subnormal numbers for zero. That is nothing beside elements and squares of a usual
 * size, which this mean square shows.
 */
INLINE int is_tiny(const progress *p, int64_t n, int t) {
    return V_DOTS(t) && p->k == 0 && !(wide_value(p->second) > 0x1p-90 * (double)n);
}

INLINE mean_var settled_mean_var(const progress *p, const void *x, int64_t n, int t) {
    mean_var v = mean_var_of(p, n);
    if (LIKELY(v.delta * v.delta <= 4 * v.var && v.var <= 1e300 && !is_tiny(p, n, t))) return v;
    return repaired_mean_var(v, x, n, t);
}

INLINE double rstd_of(mean_var v, double epsilon) { return 1 / sqrt(v.var + epsilon); }

enum { CENTRED_COLUMNS = 64 }; /* shorter rows of equal elements give xhat = 0 exactly whatever their mean */

/* Mean = k + delta. A row of equal elements is never centred, since epsilon is then all that is in rstd. */
INLINE row_stat row_stat_of(double k, double delta, double rstd, const lnb_layer_norm *c, int t) {
    const double mean = k + delta;
    row_stat s = {.hi = (real)mean, .rstd = (real)rstd};
    s.centred = is_half(t) && c->cols >= CENTRED_COLUMNS && (mean * mean + c->epsilon) * rstd * rstd <= 0.999;
    s.lo = s.centred ? s.hi : (real)((k - (double)s.hi) + delta);
    if (s.centred) s.hi = 0;
    if (!isfinite(s.hi)) s.lo = s.hi - s.hi; /* NaN: no element of this row is finite */
    return s;
}

INLINE void put_stat(void *p, int64_t row, double value, int t) {
    if (t == LNB_F64) ((double *)p)[row] = value;
    else ((float *)p)[row] = (float)value;
}

INLINE double get_stat(const void *p, int64_t row, int t) {
    return t == LNB_F64 ? ((const double *)p)[row] : (double)((const float *)p)[row];
}

INLINE void write_stats(const lnb_layer_norm *c, int64_t row, mean_var v, double rstd) {
    if (c->mean) put_stat(c->mean, row, v.k + v.delta, c->stat_dtype);
    if (!c->stat) return;
    if (c->stat_kind == LNB_STD) rstd = sqrt(v.var + c->epsilon);
    if (c->stat_kind == LNB_VAR) rstd = v.var;
    put_stat(c->stat, row, rstd, c->stat_dtype);
}

INLINE row_stat read_stats(const lnb_layer_norm *c, int64_t row, int t) {
    double mean = get_stat(c->mean, row, c->stat_dtype), stat = get_stat(c->stat, row, c->stat_dtype);
    if (c->stat_kind == LNB_STD) stat = 1 / stat;
    if (c->stat_kind == LNB_VAR) stat = 1 / sqrt(stat + c->epsilon);
    return row_stat_of(mean, 0, stat, c, t);
}

#endif
