/*
 * Forward, whole calls: rows are shared out, or, when they are few and long, chunks of columns in three phases, with the same
 * bits.
 */
#include "forward_rows.h"

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
    *out = row_stat_of(v.k, v.delta, rstd_of(v, c->epsilon), c, type);
}

/* The three phases of a call whose rows are few and long: chunks of columns are shared out instead of rows. */
INLINE void sums(const struct lnb_task *t, int64_t first, int64_t last, int type) {
    const lnb_layer_norm *c = t->call;
    for (int64_t row = 0; row < c->rows; row++) {
        const void *x = at(c->x, row * c->x_row_stride, type);
        real k = pilot_of(x, c->cols, type);
        for (int64_t i = first; i < last; i++) {
            moments m = moments_zero();
            moments_range(&m, x, k, i * CHUNK, least(c->cols, (i + 1) * CHUNK), type);
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
        *stat_at(t, row) = row_stat_of(v.k, v.delta, rstd, c, type);
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

FOR_TYPES(DEFINE)
