/*
 * Forward. Rows are taken in groups of two, and one loop adds up the next group while it writes the present one: each
 * turn reads one new piece of x and writes one piece of y, as a copy does, so the memory is never idle while sums are
 * formed, gamma and beta are loaded once for two rows, and the latency of additions and of the square root hides behind
 * the stores. x is read from memory once: the present group is still in the cache from when it was added up.
 */
#include "layer_norm.h"

/* A group that is being added up. */
typedef struct {
    const void *x[GROUP], *ahead[GROUP];
    progress p[GROUP];
} reader;

/* A group that is being written. Columns before `peel` are written first, so that stores fall on whole lines. */
typedef struct {
    const void *x[GROUP];
    void *y[GROUP];
    row_stat stat[GROUP];
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
    EACH(rows, {
        vec y = v_fma(normalized(s[r], v_load(w->x[r], j, p->type)), gamma, beta);
        if (stream) v_stream(w->y[r], j, y, p->type);
        else v_store(w->y[r], j, y, p->type);
    });
}

INLINE void put_some(const pass *p, const writer *w, const scale *s, int rows, int64_t j, int64_t n) {
    vec gamma = load_param_some(p->gamma, j, n, p->affine), beta = load_param_some(p->beta, j, n, p->affine);
    EACH(rows, {
        vec y = v_fma(normalized(s[r], v_load_some(w->x[r], j, n, p->type)), gamma, beta);
        v_store_some(w->y[r], j, n, y, p->type);
    });
}

/* Writes columns [j, end) of a group, with vectors that begin at j. */
INLINE void put_range(const pass *p, const writer *w, int rows, int64_t j, int64_t end, int stream) {
    scale s[GROUP];
    EACH(rows, s[r] = scale_of(&w->stat[r]););
    for (; j + LANES <= end; j += LANES) put(p, w, s, rows, j, stream);
    if (j < end) put_some(p, w, s, rows, j, end - j);
}

INLINE void put_head(const pass *p, const writer *w, int rows) { put_range(p, w, rows, 0, w->peel, 0); }

/* Adds up columns [a, b) of `in`; meanwhile writes `out`, vectors shifted by its peel, up to the column returned. */
INLINE int64_t sum_and_put(const pass *p, reader *in, const writer *out, int64_t a, int64_t b) {
    const int t = p->type;
    moments m[GROUP];
    vec k[GROUP];
    scale s[GROUP];
    EACH(GROUP, {
        m[r] = moments_zero();
        k[r] = v_set1(in->p[r].k);
        s[r] = scale_of(&out->stat[r]);
    });
    int64_t j = a, both = least(b, p->n - out->peel);
    for (; j + 2 * LANES <= both; j += 2 * LANES) {
        EACH(GROUP, {
            prefetch(at(in->ahead[r], j - a, t), 2 * LANES * size_of(t));
            moments_add(&m[r], 0, v_sub(v_load(in->x[r], j, t), k[r]));
            moments_add(&m[r], 1, v_sub(v_load(in->x[r], j + LANES, t), k[r]));
        });
        put(p, out, s, GROUP, j + out->peel, p->stream);
        put(p, out, s, GROUP, j + out->peel + LANES, p->stream);
    }
    EACH(GROUP, {
        moments_rest(&m[r], in->x[r], k[r], j, b, t);
        progress_add(&in->p[r], moments_value(&m[r]));
    });
    return j > a ? j + out->peel : -1;
}

INLINE void open_group(const pass *p, reader *in, int64_t row) {
    EACH(GROUP, {
        in->x[r] = x_row(p, row + r);
        in->p[r] = (progress){pilot_of(in->x[r], p->n, p->type), {0, 0}, {0, 0}};
    });
}

/* Settles the statistics of rows that have been added up, and makes them the ones to write. */
INLINE void close_row(const pass *p, const progress *sums, const void *x, int64_t row, writer *out, int r) {
    mean_var v = settled_mean_var(sums, x, p->n, p->type);
    write_stats(p->c, row, v);
    out->x[r] = x;
    out->y[r] = p->c->y ? at_out(p->c->y, row * p->c->y_row_stride, p->type) : NULL;
    out->stat[r] = row_stat_of(v, p->c->epsilon);
}

INLINE void write_row(const pass *p, writer *out) {
    if (!out->y[0]) return;
    out->peel = elements_to_line(out->y[0], p->n, p->type);
    put_head(p, out, 1);
    put_range(p, out, 1, out->peel, p->n, p->stream);
}

/* Writes the group `out` while the group `in`, which begins at `row`, is added up. */
INLINE void turn(const pass *p, reader *in, const writer *out, int64_t row, int64_t last) {
    int64_t written = out->peel;
    for (int64_t a = 0; a < p->n; a += CHUNK) {
        int64_t b = least(p->n, a + CHUNK);
        EACH(GROUP, {
            int64_t next = least(row + GROUP + r, last - 1);
            in->ahead[r] = b < p->n ? at(in->x[r], b, p->type) : x_row(p, next);
        });
        int64_t end = sum_and_put(p, in, out, a, b);
        if (end >= 0) written = end;
    }
    put_range(p, out, GROUP, written, p->n, p->stream);
}

INLINE void one_row(const pass *p, int64_t row) {
    writer out;
    const void *x = x_row(p, row);
    progress sums = sum_row(x, p->n, pilot_of(x, p->n, p->type), p->type);
    close_row(p, &sums, x, row, &out, 0);
    write_row(p, &out);
}

/* Rows whose lines of output begin at different columns are written one by one. */
INLINE void forward_span(const pass *p, int64_t row, int64_t last) {
    int together = p->c->y && p->c->y_row_stride * size_of(p->type) % 64 == 0 && last - row >= 2 * GROUP;
    if (together) {
        reader in;
        writer out;
        open_group(p, &in, row);
        EACH(GROUP, in.p[r] = sum_row(in.x[r], p->n, in.p[r].k, p->type););
        for (;;) {
            EACH(GROUP, close_row(p, &in.p[r], in.x[r], row + r, &out, r););
            out.peel = elements_to_line(out.y[0], p->n, p->type);
            put_head(p, &out, GROUP);
            row += GROUP;
            if (row + GROUP > last) break;
            open_group(p, &in, row);
            turn(p, &in, &out, row, last);
        }
        put_range(p, &out, GROUP, out.peel, p->n, p->stream);
    }
    for (; row < last; row++) one_row(p, row);
}

INLINE void rows(const struct lnb_task *t, int64_t first, int64_t last, int type, int affine) {
    pass p = pass_of(t, type, affine);
    forward_span(&p, first, last);
    if (p.stream) v_fence();
}

/* The statistics of one row, for backward. */
INLINE void statistics(const struct lnb_task *t, int64_t row, row_stat *out, int type) {
    const lnb_layer_norm *c = t->call;
    const void *x = at(c->x, row * c->x_row_stride, type);
    progress sums = sum_row(x, c->cols, pilot_of(x, c->cols, type), type);
    *out = row_stat_of(settled_mean_var(&sums, x, c->cols, type), c->epsilon);
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
        for (int64_t i = 0; i < t->chunks; i++) progress_add(&p, t->sums[row * t->chunks + i]);
        mean_var v = settled_mean_var(&p, x, c->cols, type);
        if (!t->recompute) write_stats(c, row, v);
        *stat_at(t, row) = row_stat_of(v, c->epsilon);
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

#if LNB_REAL == 32
DEFINE(f32, LNB_F32, LNB_F32)
DEFINE(f16, LNB_F16, LNB_F16)
DEFINE(f16_f32, LNB_F16, LNB_F32)
DEFINE(bf16, LNB_BF16, LNB_BF16)
DEFINE(bf16_f32, LNB_BF16, LNB_F32)
#else
DEFINE(f64, LNB_F64, LNB_F64)
#endif
