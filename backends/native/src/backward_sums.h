/*
 * Backward, first reading of a row: the sums of g = dy * gamma and of g * xhat, without which no dx can be written.
 *
 * dgamma and dbeta are summed here or in the second reading, with the same bits. Here it costs less, unless dx goes past the
 * cache: stores take effect in order, so those of the sums would wait here behind the non-temporal stores of the rows
 * written before, which wait for memory. A loop that only reads goes on while those drain.
 */
#ifndef LNB_BACKWARD_SUMS_H
#define LNB_BACKWARD_SUMS_H

#include "statistics.h"

/* One chain per row is enough: a turn of the loop takes longer than an addition. */
enum { BACKWARD_CHUNK = LANES == 1 ? 32 : 64 * LANES, REAL_TYPE = LNB_REAL == 32 ? LNB_F32 : LNB_F64 };

/* Where rows add their gradients of the parameters. */
typedef struct {
    void *dgamma, *dbeta;
} gradients;

/* What stays the same from row to row. `early`, `late`: in which reading gradients of the parameters are summed, if any. */
typedef struct {
    const lnb_layer_norm *c;
    const struct lnb_task *t;
    int64_t n;
    param gamma;
    int type, affine, early, late, stream;
} pass;

INLINE pass pass_of(const struct lnb_task *t, int type, int affine) {
    const lnb_layer_norm *c = t->call;
    const int early = t->want_params && c->dx && !t->stream, late = t->want_params && !early;
    return (pass){c, t, c->cols, param_of(c->gamma, 1, affine), type, affine, early, late, t->stream};
}

INLINE const void *x_row(const pass *p, int64_t row) { return at(p->c->x, row * p->c->x_row_stride, p->type); }
INLINE const void *dy_row(const pass *p, int64_t row) { return at(p->c->dy, row * p->c->dy_row_stride, p->type); }

/* Sums of g and g * xhat over a chunk, per row. */
typedef struct {
    vec g[PAIR], gx[PAIR];
} moments2;

/* A pair that is being added up. `ahead`, here and below: what memory is asked for meanwhile, or NULL. */
typedef struct {
    const void *x[PAIR], *dy[PAIR], *ahead[PAIR];
    row_stat stat[PAIR];
    moments2 m;
    wide g[PAIR], gx[PAIR];
    gradients to;
} reader;

INLINE moments2 moments2_zero(void) { return (moments2){{v_zero(), v_zero()}, {v_zero(), v_zero()}}; }

INLINE void ask(const void *const ahead[PAIR], int64_t j, int64_t n, int t) {
    EACH(PAIR, prefetch(at(ahead[r], j, t), n * size_of(t)););
}

/* A vector of columns of one or two rows. */
typedef struct {
    vec dy[PAIR], xhat[PAIR];
} columns_of_rows;

INLINE columns_of_rows read_rows(const void *const x[PAIR], const void *const dy[PAIR], const scale *s, int rows, int64_t j, int t) {
    columns_of_rows v = {{v_zero(), v_zero()}, {v_zero(), v_zero()}};
    EACH(rows, {
        v.dy[r] = v_keep(v_load(dy[r], j, t));
        v.xhat[r] = normalized(s[r], v_load(x[r], j, t));
    });
    return v;
}

INLINE columns_of_rows read_some(const void *const x[PAIR], const void *const dy[PAIR], const scale *s, int rows, int64_t j,
                                 int64_t n, int t) {
    columns_of_rows v = {{v_zero(), v_zero()}, {v_zero(), v_zero()}};
    EACH(rows, {
        v.dy[r] = v_load_some(dy[r], j, n, t);
        v.xhat[r] = v_first(normalized(s[r], v_load_some(x[r], j, n, t)), n);
    });
    return v;
}

/* Row after row, so that it makes no difference to the bits whether rows come by pairs. */
INLINE void add_params(gradients to, const columns_of_rows *v, int rows, int64_t j, int64_t n) {
    vec dgamma = v_load_lanes(to.dgamma, j, n, REAL_TYPE), dbeta = v_load_lanes(to.dbeta, j, n, REAL_TYPE);
    EACH(rows, {
        dgamma = v_fma(v->dy[r], v->xhat[r], dgamma);
        dbeta = v_add(dbeta, v->dy[r]);
    });
    v_store_lanes(to.dgamma, j, n, dgamma, REAL_TYPE);
    v_store_lanes(to.dbeta, j, n, dbeta, REAL_TYPE);
}

INLINE void add_rows(moments2 *m, const columns_of_rows *v, int rows, vec gamma) {
    EACH(rows, {
        vec g = v_mul(v->dy[r], gamma);
        m->g[r] = v_add(m->g[r], g);
        m->gx[r] = v_fma(g, v->xhat[r], m->gx[r]);
    });
}

INLINE void add(const pass *p, const reader *in, const scale *s, moments2 *m, int rows, int64_t j) {
    columns_of_rows v = read_rows(in->x, in->dy, s, rows, j, p->type);
    add_rows(m, &v, rows, load_param(p->gamma, j, p->affine));
    if (p->early) add_params(in->to, &v, rows, j, LANES);
}

INLINE void add_some(const pass *p, const reader *in, const scale *s, moments2 *m, int rows, int64_t j, int64_t n) {
    columns_of_rows v = read_some(in->x, in->dy, s, rows, j, n, p->type);
    add_rows(m, &v, rows, load_param_some(p->gamma, j, n, p->affine));
    if (p->early) add_params(in->to, &v, rows, j, n);
}

/* Adds columns [j, end) of a pair. */
INLINE void add_range(const pass *p, const reader *in, const scale *s, moments2 *m, int rows, int64_t j, int64_t end) {
    /* A copy that no store can change stays in registers. */
    const reader own = {
        .x = {in->x[0], in->x[1]}, .dy = {in->dy[0], in->dy[1]}, .ahead = {in->ahead[0], in->ahead[1]}, .to = in->to};
    if (own.ahead[0]) {
        const int64_t width = LANES * size_of(p->type) < 64 ? 2 * LANES : LANES;
        for (; j + width <= end; j += width) {
            ask(own.ahead, j, width, p->type);
            add(p, &own, s, m, rows, j);
            if (width > LANES) add(p, &own, s, m, rows, j + LANES);
        }
    }
    for (; j + LANES <= end; j += LANES) add(p, &own, s, m, rows, j);
    if (j < end) add_some(p, &own, s, m, rows, j, end - j);
}

/* Adds columns [begin, end) to the sums of a pair, which begin anew with every chunk. */
INLINE void add_chunk(const pass *p, reader *in, int rows, int64_t begin, int64_t end) {
    scale s[PAIR];
    moments2 m = begin % BACKWARD_CHUNK ? in->m : moments2_zero();
    EACH(rows, s[r] = scale_of(&in->stat[r]););
    add_range(p, in, s, &m, rows, begin, end);
    in->m = m;
}

/* The sums of the chunk that ended: of g and g * xhat, row after row. */
INLINE void chunk_values(const reader *in, double sums[2 * PAIR]) {
    const vec v[2 * PAIR] = {in->m.g[0], in->m.gx[0], in->m.g[1], in->m.gx[1]};
    v_sum4(v, sums);
}

INLINE void end_chunk(reader *in, int rows, int first) {
    double sums[2 * PAIR];
    chunk_values(in, sums);
    EACH(rows, {
        in->g[r] = first ? (wide){sums[2 * r], 0} : wide_add(in->g[r], sums[2 * r]);
        in->gx[r] = first ? (wide){sums[2 * r + 1], 0} : wide_add(in->gx[r], sums[2 * r + 1]);
    });
}

INLINE void add_pair(const pass *p, reader *in, int rows) {
    for (int64_t a = 0; a < p->n; a += BACKWARD_CHUNK) {
        add_chunk(p, in, rows, a, least(p->n, a + BACKWARD_CHUNK));
        end_chunk(in, rows, a == 0);
    }
}

INLINE row_stat stat_of(const pass *p, int64_t row) {
    row_stat s;
    if (!p->t->recompute) return read_stats(p->c, row);
    p->t->recompute->statistics(p->t, row, &s);
    return s;
}

INLINE void open_pair(const pass *p, reader *in, int rows, int64_t row) {
    EACH(rows, {
        in->x[r] = x_row(p, row + r);
        in->dy[r] = dy_row(p, row + r);
        in->stat[r] = stat_of(p, row + r);
        in->g[r] = in->gx[r] = (wide){0, 0};
    });
}

/* The same with what the sums were for: the means of g and g * xhat. */
INLINE row_stat summed(const pass *p, const reader *in, int r) {
    row_stat s = in->stat[r];
    s.mean_g = (real)mean_of(wide_value(in->g[r]), p->n);
    s.mean_gx = (real)mean_of(wide_value(in->gx[r]), p->n);
    return s;
}

#endif
