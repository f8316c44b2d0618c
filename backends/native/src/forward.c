/*
 * Forward. Rows are taken by pairs, so that gamma and beta are loaded once for two rows and latencies are shared. x is read
 * from memory once: the second reading, for y, finds the rows in the cache. There are two ways through the rows, which
 * give the same bits. A pair of a tensor that fits in the cache is added up, settled and written. For larger tensors
 * one loop adds up the next pair while it writes the present one: each turn reads new lines of x and writes lines of y,
 * as a copy does, so the memory is read and written at the same time.
 */
#include "statistics.h"

/* A pair that is being added up, and the address that far ahead of it. */
typedef struct {
    const void *x[PAIR], *ahead[PAIR];
    progress p[PAIR];
} reader;

/* A pair that is being written. Columns before `peel` are written first, so that stores fall on whole lines. */
typedef struct {
    const void *x[PAIR];
    void *y[PAIR];
    row_stat stat[PAIR];
    int64_t peel;
} writer;

typedef struct {
    const lnb_layer_norm *c;
    int64_t n;
    param gamma, beta;
    int type, affine, stream;
} pass;

INLINE pass pass_of(const struct lnb_task *t, int type, int affine) {
    const lnb_layer_norm *c = t->call;
    return (pass){c, c->cols, param_of(c->gamma, 1, affine), param_of(c->beta, 0, affine), type, affine, t->stream};
}

INLINE const void *x_row(const pass *p, int64_t row) { return at(p->c->x, row * p->c->x_row_stride, p->type); }

INLINE void put(const pass *p, const writer *w, const scale *s, int rows, int64_t j, int stream) {
    vec gamma = load_param(p->gamma, j, p->affine), beta = load_param(p->beta, j, p->affine);
    vec y[PAIR] = {v_zero(), v_zero()};
    EACH(rows, y[r] = v_fma(normalized(s[r], v_load(w->x[r], j, p->type)), gamma, beta););
    EACH(rows, {
        if (stream) v_stream(w->y[r], j, y[r], p->type);
        else v_store(w->y[r], j, y[r], p->type);
    });
}

INLINE void put_some(const pass *p, const writer *w, const scale *s, int rows, int64_t j, int64_t n) {
    vec gamma = load_param_some(p->gamma, j, n, p->affine), beta = load_param_some(p->beta, j, n, p->affine);
    EACH(rows, {
        vec y = v_fma(normalized(s[r], v_load_some(w->x[r], j, n, p->type)), gamma, beta);
        v_store_some(w->y[r], j, n, y, p->type);
    });
}

/* Writes columns [j, end) of one or two rows, with vectors that begin at j. */
INLINE void put_range(const pass *p, const writer *w, int rows, int64_t j, int64_t end, int stream) {
    scale s[PAIR];
    EACH(rows, s[r] = scale_of(&w->stat[r]););
    for (; j + LANES <= end; j += LANES) put(p, w, s, rows, j, stream);
    if (j < end) put_some(p, w, s, rows, j, end - j);
}

/* Adds up two rows, from pilots that are found together to sums that are formed together. */
INLINE void sum_pair(const pass *p, const void *const x[PAIR], progress to[PAIR]) {
    const int t = p->type;
    vec v[2 * PAIR];
    double sums[2 * PAIR];
    EACH(PAIR, pilot_sums(x[r], p->n, t, v + 2 * r););
    v_sum4(v, sums);
    EACH(PAIR, to[r] = (progress){pilot_from(sums[2 * r], sums[2 * r + 1], p->n), {0, 0}, {0, 0}};);
    for (int64_t a = 0; a < p->n; a += CHUNK) {
        moments m[PAIR];
        struct lnb_sums s[PAIR];
        EACH(PAIR, {
            m[r] = moments_zero();
            moments_rest(&m[r], x[r], v_set1(to[r].k), a, least(p->n, a + CHUNK), t);
        });
        moments_values(m, s);
        EACH(PAIR, progress_add(&to[r], s[r], a == 0););
    }
}

/* Settles the statistics of a row that has been added up, and makes it one to write. */
INLINE void close_row(const pass *p, const progress *sums, const void *x, int64_t row, writer *out, int r) {
    mean_var v = settled_mean_var(sums, x, p->n, p->type);
    double rstd = rstd_of(v, p->c->epsilon);
    write_stats(p->c, row, v, rstd);
    out->x[r] = x;
    out->y[r] = p->c->y ? at_out(p->c->y, row * p->c->y_row_stride, p->type) : NULL;
    out->stat[r] = row_stat_of(v, rstd);
    out->peel = elements_to_line(out->y[r], p->n, p->type);
}

INLINE void write_rows(const pass *p, const writer *w, int rows) {
    if (!p->c->y) return;
    put_range(p, w, rows, 0, w->peel, 0);
    put_range(p, w, rows, w->peel, p->n, p->stream);
}

INLINE void one_row(const pass *p, int64_t row) {
    writer out;
    const void *x = x_row(p, row);
    progress sums = sum_row(x, p->n, pilot_of(x, p->n, p->type), p->type);
    close_row(p, &sums, x, row, &out, 0);
    write_rows(p, &out, 1);
}

/* Adds up columns [a, b) of `in`; meanwhile writes `out`, vectors shifted by its peel, and says up to where. */
INLINE void sum_and_put(const pass *p, reader *in, const writer *out, int64_t a, int64_t b, int64_t *written) {
    const int t = p->type;
    moments m[PAIR];
    vec k[PAIR];
    scale s[PAIR];
    struct lnb_sums sums[PAIR];
    EACH(PAIR, {
        m[r] = moments_zero();
        k[r] = v_set1(in->p[r].k);
        s[r] = scale_of(&out->stat[r]);
    });
    int64_t j = a, both = least(b, p->n - out->peel);
    for (; j + 2 * LANES <= both; j += 2 * LANES) {
        EACH(PAIR, {
            prefetch(at(in->ahead[r], j - a, t), 2 * LANES * size_of(t));
            moments_add(&m[r], 0, v_sub(v_load(in->x[r], j, t), k[r]));
            moments_add(&m[r], 1, v_sub(v_load(in->x[r], j + LANES, t), k[r]));
        });
        put(p, out, s, PAIR, j + out->peel, p->stream);
        put(p, out, s, PAIR, j + out->peel + LANES, p->stream);
    }
    if (j > a) *written = j + out->peel;
    EACH(PAIR, moments_rest(&m[r], in->x[r], k[r], j, b, t););
    moments_values(m, sums);
    EACH(PAIR, progress_add(&in->p[r], sums[r], a == 0););
}

/* Writes the pair `out` while the pair `in`, which begins at `row`, is added up. */
INLINE void turn(const pass *p, reader *in, const writer *out, int64_t row, int64_t last) {
    int64_t written = out->peel;
    EACH(PAIR, {
        in->x[r] = x_row(p, row + r);
        in->p[r] = (progress){pilot_of(in->x[r], p->n, p->type), {0, 0}, {0, 0}};
    });
    put_range(p, out, PAIR, 0, out->peel, 0);
    for (int64_t a = 0; a < p->n; a += CHUNK) {
        int64_t b = least(p->n, a + CHUNK);
        EACH(PAIR, in->ahead[r] = b < p->n ? at(in->x[r], b, p->type) : x_row(p, least(row + PAIR + r, last - 1)););
        sum_and_put(p, in, out, a, b, &written);
    }
    put_range(p, out, PAIR, written, p->n, p->stream);
}

INLINE void sum_and_close(const pass *p, writer *out, int64_t row) {
    const void *x[PAIR] = {x_row(p, row), x_row(p, row + 1)};
    progress sums[PAIR];
    sum_pair(p, x, sums);
    EACH(PAIR, close_row(p, &sums[r], x[r], row + r, out, r););
}

INLINE int64_t fused(const pass *p, int64_t row, int64_t last) {
    reader in;
    writer out;
    sum_and_close(p, &out, row);
    for (row += PAIR; row + PAIR <= last; row += PAIR) {
        turn(p, &in, &out, row, last);
        EACH(PAIR, close_row(p, &in.p[r], in.x[r], row + r, &out, r););
    }
    write_rows(p, &out, PAIR);
    return row;
}

/* Rows whose lines of output begin at different columns cannot share a loop. */
INLINE void forward_span(const pass *p, int64_t row, int64_t last, int ahead) {
    int together = p->c->y && p->c->y_row_stride * size_of(p->type) % 64 == 0;
    if (together && ahead && row + 2 * PAIR <= last) row = fused(p, row, last);
    for (; together && row + PAIR <= last; row += PAIR) {
        writer out;
        sum_and_close(p, &out, row);
        write_rows(p, &out, PAIR);
    }
    for (; row < last; row++) one_row(p, row);
}

INLINE void rows(const struct lnb_task *t, int64_t first, int64_t last, int type, int affine) {
    pass p = pass_of(t, type, affine);
    forward_span(&p, first, last, t->ahead);
    if (p.stream) v_fence();
}

/* The statistics of one row, for backward. */
INLINE void statistics(const struct lnb_task *t, int64_t row, row_stat *out, int type) {
    const lnb_layer_norm *c = t->call;
    const void *x = at(c->x, row * c->x_row_stride, type);
    progress sums = sum_row(x, c->cols, pilot_of(x, c->cols, type), type);
    mean_var v = settled_mean_var(&sums, x, c->cols, type);
    *out = row_stat_of(v, rstd_of(v, c->epsilon));
}

/* The three phases of a call whose rows are few and long: chunks of columns are shared out instead of rows. */
INLINE void sums(const struct lnb_task *t, int64_t first, int64_t last, int type) {
    const lnb_layer_norm *c = t->call;
    for (int64_t row = 0; row < c->rows; row++) {
        const void *x = at(c->x, row * c->x_row_stride, type);
        vec k = v_set1(pilot_of(x, c->cols, type));
        for (int64_t i = first; i < last; i++) {
            moments m = moments_zero();
            moments_rest(&m, x, k, i * CHUNK, least(c->cols, (i + 1) * CHUNK), type);
            t->sums[row * t->chunks + i] = moments_value(&m);
        }
    }
}

INLINE row_stat *stat_at(const struct lnb_task *t, int64_t row) {
    return (row_stat *)(void *)(t->rows + row * LNB_ROW_DOUBLES);
}

INLINE void finish(const struct lnb_task *t, int type) {
    const lnb_layer_norm *c = t->call;
    for (int64_t row = 0; row < c->rows; row++) {
        const void *x = at(c->x, row * c->x_row_stride, type);
        progress p = {pilot_of(x, c->cols, type), {0, 0}, {0, 0}};
        for (int64_t i = 0; i < t->chunks; i++) progress_add(&p, t->sums[row * t->chunks + i], i == 0);
        mean_var v = settled_mean_var(&p, x, c->cols, type);
        double rstd = rstd_of(v, c->epsilon);
        if (!t->recompute) write_stats(c, row, v, rstd);
        *stat_at(t, row) = row_stat_of(v, rstd);
    }
}

INLINE void columns(const struct lnb_task *t, int64_t first, int64_t last, int type, int affine) {
    const lnb_layer_norm *c = t->call;
    pass p = pass_of(t, type, affine);
    int64_t end = least(c->cols, last * CHUNK);
    for (int64_t row = 0; row < c->rows && c->y; row++) {
        writer out = {.x = {x_row(&p, row)}, .y = {at_out(c->y, row * c->y_row_stride, type)}};
        out.stat[0] = *stat_at(t, row);
        int64_t begin = first * CHUNK;
        int64_t head = least(begin + elements_to_line(at(out.y[0], begin, type), p.n, type), end);
        put_range(&p, &out, 1, begin, head, 0);
        put_range(&p, &out, 1, head, end, p.stream);
    }
    if (t->stream) v_fence();
}

#define DEFINE(name, type, affine)                                                                                     \
    static void rows_##name(const struct lnb_task *t, int64_t a, int64_t b) { rows(t, a, b, type, affine); }           \
    static void sums_##name(const struct lnb_task *t, int64_t a, int64_t b) { sums(t, a, b, type); }                   \
    static void finish_##name(const struct lnb_task *t) { finish(t, type); }                                           \
    static void columns_##name(const struct lnb_task *t, int64_t a, int64_t b) { columns(t, a, b, type, affine); }     \
    static void statistics_##name(const struct lnb_task *t, int64_t r, void *s) { statistics(t, r, s, type); }         \
    const struct lnb_forward LNB_SYMBOL(forward, LNB_TARGET, name) = {                                                 \
        CHUNK, rows_##name, sums_##name, finish_##name, columns_##name, statistics_##name};

#if LNB_REAL == 64
DEFINE(f64, LNB_F64, LNB_F64)
#else
DEFINE(bf16, LNB_BF16, LNB_BF16)
DEFINE(bf16_f32, LNB_BF16, LNB_F32)
#if !LNB_TARGET_AVX512_BF16 /* which differs from avx512 for these two alone */
DEFINE(f32, LNB_F32, LNB_F32)
DEFINE(f16, LNB_F16, LNB_F16)
DEFINE(f16_f32, LNB_F16, LNB_F32)
#endif
#endif
