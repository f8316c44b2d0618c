/*
 * Forward. Rows are taken in pairs: both are added up, their statistics are settled together, and both are written by
 * one loop that loads gamma and beta once for the two. x is read from memory once; the second reading, for y, finds the
 * rows in the cache. When the tensors are larger than the cache, the loops also ask for the next pair of rows, so
 * that the memory works while sums are formed. Few streams at a time matter more than fusing the loops over different
 * rows: rows of 4096 bytes, a common length, all fall on the same few lines of the first-level cache.
 */
#include "layer_norm.h"

/* A group that is being written. Columns before `peel` are written first, so that stores fall on whole lines. */
typedef struct {
    const void *x[GROUP], *next[GROUP];
    void *y[GROUP];
    row_stat stat[GROUP];
    int64_t peel;
} writer;

typedef struct {
    const lnb_layer_norm *c;
    int64_t n;
    param gamma, beta;
    int type, affine, stream, ahead;
} pass;

INLINE pass pass_of(const struct lnb_task *t, int type, int affine) {
    const lnb_layer_norm *c = t->call;
    return (pass){c, c->cols, param_of(c->gamma, 1, affine), param_of(c->beta, 0, affine), type, affine, t->stream, t->ahead};
}

INLINE const void *x_row(const pass *p, int64_t row) { return at(p->c->x, row * p->c->x_row_stride, p->type); }

INLINE void put(const pass *p, const writer *w, const scale *s, int rows, int64_t j, int stream) {
    vec gamma = load_param(p->gamma, j, p->affine), beta = load_param(p->beta, j, p->affine);
    vec y[GROUP];
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

/* Writes columns [j, end) of a group, with vectors that begin at j. */
INLINE void put_range(const pass *p, const writer *w, int rows, int64_t j, int64_t end, int stream) {
    scale s[GROUP];
    EACH(rows, s[r] = scale_of(&w->stat[r]););
    for (; j + LANES <= end; j += LANES) {
        if (p->ahead) EACH(rows, __builtin_prefetch(at(w->next[r], j, p->type)););
        put(p, w, s, rows, j, stream);
    }
    if (j < end) put_some(p, w, s, rows, j, end - j);
}

/* Adds up two rows, from pilots that are found together to sums that are formed together. */
INLINE void sum_group(const pass *p, const void *const x[GROUP], progress to[GROUP]) {
    const int t = p->type;
    vec v[2 * GROUP];
    double sums[2 * GROUP];
    EACH(GROUP, pilot_sums(x[r], p->n, t, v + 2 * r););
    v_sum4(v, sums);
    EACH(GROUP, to[r] = (progress){pilot_from(sums[2 * r], sums[2 * r + 1], p->n), {0, 0}, {0, 0}};);
    for (int64_t a = 0; a < p->n; a += CHUNK) {
        moments m[GROUP];
        struct lnb_sums s[GROUP];
        EACH(GROUP, {
            m[r] = moments_zero();
            moments_rest(&m[r], x[r], v_set1(to[r].k), a, least(p->n, a + CHUNK), t);
        });
        moments_values(m, s);
        EACH(GROUP, progress_add(&to[r], s[r], a == 0););
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
}

INLINE void write_group(const pass *p, writer *out, int rows) {
    if (!out->y[0]) return;
    out->peel = elements_to_line(out->y[0], p->n, p->type);
    put_range(p, out, rows, 0, out->peel, 0);
    put_range(p, out, rows, out->peel, p->n, p->stream);
}

INLINE void one_row(const pass *p, int64_t row) {
    writer out;
    const void *x = x_row(p, row);
    progress sums = sum_row(x, p->n, pilot_of(x, p->n, p->type), p->type);
    out.next[0] = x;
    close_row(p, &sums, x, row, &out, 0);
    write_group(p, &out, 1);
}

/* Rows whose lines of output begin at different columns are written one by one. */
INLINE void forward_span(const pass *p, int64_t row, int64_t last) {
    int together = p->c->y_row_stride * size_of(p->type) % 64 == 0;
    for (; row + GROUP <= last && together; row += GROUP) {
        const void *x[GROUP] = {x_row(p, row), x_row(p, row + 1)};
        progress sums[GROUP];
        writer out;
        sum_group(p, x, sums);
        EACH(GROUP, {
            out.next[r] = x_row(p, least(row + GROUP + r, last - 1));
            close_row(p, &sums[r], x[r], row + r, &out, r);
        });
        write_group(p, &out, GROUP);
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
        writer out = {.x = {x_row(&p, row)}, .next = {x_row(&p, row)}, .y = {at_out(c->y, row * c->y_row_stride, type)}};
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
