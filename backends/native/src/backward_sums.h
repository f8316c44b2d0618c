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

/* A pair that is being added up. `ahead`, here and below: how far on memory is asked for meanwhile, in elements; or 0. */
typedef struct {
    const void *x[PAIR], *dy[PAIR];
    int64_t ahead;
    row_stat stat[PAIR];
    moments2 m;
    wide g[PAIR], gx[PAIR];
    gradients to;
} reader;

INLINE moments2 moments2_zero(void) { return (moments2){{v_zero(), v_zero()}, {v_zero(), v_zero()}}; }

INLINE void ask(const void *const row[PAIR], int rows, int64_t j, int64_t n, int t) {
    EACH(rows, prefetch(at(row[r], j, t), n * size_of(t)););
}

/* What a loop over columns does; known where it is compiled. */
typedef struct {
    int rows, centred, params, dx, stream, ahead;
} work;

/* A vector of columns of one or two rows. */
typedef struct {
    vec dy[PAIR], x[PAIR], xhat[PAIR];
} columns_of_rows;

/* Columns [j, j + n), where n is at most LANES. */
INLINE columns_of_rows read_rows(const void *const x[PAIR], const void *const dy[PAIR], const scale *s, work todo, int64_t j,
                                 int64_t n, int t) {
    columns_of_rows v = {{v_zero(), v_zero()}, {v_zero(), v_zero()}, {v_zero(), v_zero()}};
    EACH(todo.rows, {
        v.dy[r] = v_load_lanes(dy[r], j, n, t);
        v.x[r] = v_load_lanes(x[r], j, n, t);
        v.xhat[r] = v_first_lanes(normalized(s[r], v.x[r], todo.centred), n);
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

/* The sum of g * x serves centred rows: see summed. */
INLINE void add_rows(moments2 *m, const columns_of_rows *v, work todo, vec gamma) {
    EACH(todo.rows, {
        vec g = v_mul(v->dy[r], gamma);
        m->g[r] = v_add(m->g[r], g);
        m->gx[r] = v_fma(g, todo.centred ? v->x[r] : v->xhat[r], m->gx[r]);
    });
}

INLINE void add(const pass *p, const reader *in, const scale *s, moments2 *m, work todo, int64_t j, int64_t n) {
    columns_of_rows v = read_rows(in->x, in->dy, s, todo, j, n, p->type);
    add_rows(m, &v, todo, load_param_lanes(p->gamma, j, n, p->affine));
    if (todo.params) add_params(in->to, &v, todo.rows, j, n);
}

/* Adds columns [j, end) of a pair. */
INLINE void add_columns(const pass *p, const reader *in, moments2 *m, work todo, int64_t j, int64_t end) {
    /* A copy that no store can change stays in registers. */
    const reader own = {.x = {in->x[0], in->x[1]}, .dy = {in->dy[0], in->dy[1]}, .ahead = in->ahead, .to = in->to};
    scale s[PAIR];
    EACH(todo.rows, s[r] = scale_of(&in->stat[r]););
    if (own.ahead) {
        const int64_t width = LANES * size_of(p->type) < 64 ? 2 * LANES : LANES;
        for (; j + width <= end; j += width) {
            ask(own.x, todo.rows, j + own.ahead, width, p->type);
            add(p, &own, s, m, todo, j, LANES);
            if (width > LANES) add(p, &own, s, m, todo, j + LANES, LANES);
        }
    }
    for (; j + LANES <= end; j += LANES) add(p, &own, s, m, todo, j, LANES);
    if (j < end) add(p, &own, s, m, todo, j, end - j);
}

/* Rows that are centred take other loops, and their sums have other bits. */
INLINE int is_centred(const row_stat *s, int t) { return is_half(t) && s->centred; }
INLINE int are_alike(const reader *in, int rows, int t) {
    return rows < PAIR || is_centred(&in->stat[0], t) == is_centred(&in->stat[1], t);
}

/* Adds columns [begin, end) to the sums of one row or two alike. */
INLINE void add_chunk(const pass *p, reader *in, int rows, int64_t begin, int64_t end) {
    moments2 m = moments2_zero();
    if (is_centred(&in->stat[0], p->type)) add_columns(p, in, &m, (work){.rows = rows, .params = p->early, .centred = 1}, begin, end);
    else add_columns(p, in, &m, (work){.rows = rows, .params = p->early}, begin, end);
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
    if (!p->t->recompute) return read_stats(p->c, row, p->type);
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

/* The same with what the sums were for: the means of g and g * xhat. Of centred rows `gx` is the sum of g * x. */
INLINE row_stat summed(row_stat s, wide g, wide gx, int64_t n) {
    const double mean_g = mean_of(wide_value(g), n), mean_gx = mean_of(wide_value(gx), n);
    s.mean_g = (real)mean_g;
    s.mean_gx = (real)(s.centred ? (mean_gx - (double)s.lo * mean_g) * (double)s.rstd : mean_gx);
    return s;
}

#endif
