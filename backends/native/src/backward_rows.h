/*
 * Backward, rows. Rows are taken by pairs. A pair is first added up: sums of g and g * xhat for each row, and the pair's
 * share of dgamma and dbeta, which is formed in registers and then added to the partial sums of the block, so those are
 * loaded and stored once for two rows. Then dx is written. x and dy are read from memory once; the second reading finds
 * them in the cache. For tensors larger than the cache one loop adds up the next pair while it writes the present
 * one, so that the memory is read and written at the same time.
 */
#ifndef LNB_BACKWARD_ROWS_H
#define LNB_BACKWARD_ROWS_H

#include "statistics.h"

/* One chain per row is enough: a turn of the loop takes longer than an addition. */
enum { BACKWARD_CHUNK = LANES == 1 ? 32 : 64 * LANES, REAL_TYPE = LNB_REAL == 32 ? LNB_F32 : LNB_F64 };

/* A pair that is being added up, and where the gradients of the parameters go. */
typedef struct {
    const void *x[PAIR], *dy[PAIR], *ahead_x[PAIR], *ahead_dy[PAIR];
    row_stat stat[PAIR];
    wide g[PAIR], gx[PAIR];
    void *dgamma, *dbeta;
    int fresh; /* nothing is in dgamma and dbeta yet */
} reader;

/* A pair whose dx is being written. */
typedef struct {
    const void *x[PAIR], *dy[PAIR];
    void *dx[PAIR];
    row_stat stat[PAIR];
    int64_t peel;
} writer;

typedef struct {
    const lnb_layer_norm *c;
    const struct lnb_task *t;
    int64_t n;
    param gamma;
    int type, affine, params, stream;
} pass;

INLINE pass pass_of(const struct lnb_task *t, int type, int affine) {
    const lnb_layer_norm *c = t->call;
    return (pass){c, t, c->cols, param_of(c->gamma, 1, affine), type, affine, t->want_params, t->stream};
}

INLINE const void *x_row(const pass *p, int64_t row) { return at(p->c->x, row * p->c->x_row_stride, p->type); }
INLINE const void *dy_row(const pass *p, int64_t row) { return at(p->c->dy, row * p->c->dy_row_stride, p->type); }

/* Sums of g and g * xhat over a chunk, per row. */
typedef struct {
    vec g[PAIR], gx[PAIR];
} moments2;

/* One vector of columns of one row; share: its part of dgamma and dbeta. */
INLINE void add_one(moments2 *m, int r, vec dy, vec xhat, vec gamma, vec share[2]) {
    vec g = v_mul(dy, gamma);
    m->g[r] = v_add(m->g[r], g);
    m->gx[r] = v_fma(g, xhat, m->gx[r]);
    share[0] = r ? v_fma(dy, xhat, share[0]) : v_mul(dy, xhat);
    share[1] = r ? v_add(share[1], dy) : dy;
}

INLINE void add(const pass *p, const reader *in, const scale *s, moments2 *m, int rows, int64_t j) {
    vec gamma = load_param(p->gamma, j, p->affine), share[2] = {v_zero(), v_zero()};
    EACH(rows, {
        vec xhat = normalized(s[r], v_load(in->x[r], j, p->type));
        add_one(m, r, v_load(in->dy[r], j, p->type), xhat, gamma, share);
    });
    if (!p->params) return;
    vec dgamma = in->fresh ? v_zero() : v_load(in->dgamma, j, REAL_TYPE);
    vec dbeta = in->fresh ? v_zero() : v_load(in->dbeta, j, REAL_TYPE);
    v_store(in->dgamma, j, v_add(dgamma, share[0]), REAL_TYPE);
    v_store(in->dbeta, j, v_add(dbeta, share[1]), REAL_TYPE);
}

INLINE void add_some(const pass *p, const reader *in, const scale *s, moments2 *m, int rows, int64_t j, int64_t n) {
    vec gamma = load_param_some(p->gamma, j, n, p->affine), share[2] = {v_zero(), v_zero()};
    EACH(rows, {
        vec xhat = v_first(normalized(s[r], v_load_some(in->x[r], j, n, p->type)), n);
        add_one(m, r, v_load_some(in->dy[r], j, n, p->type), xhat, gamma, share);
    });
    if (!p->params) return;
    vec dgamma = in->fresh ? v_zero() : v_load_some(in->dgamma, j, n, REAL_TYPE);
    vec dbeta = in->fresh ? v_zero() : v_load_some(in->dbeta, j, n, REAL_TYPE);
    v_store_some(in->dgamma, j, n, v_add(dgamma, share[0]), REAL_TYPE);
    v_store_some(in->dbeta, j, n, v_add(dbeta, share[1]), REAL_TYPE);
}

/* A row_stat as vectors: dx = (g - mean_g) * rstd - ((x - hi) * slope + offset), slope = rstd * mean_gx. */
typedef struct {
    vec hi, rstd, mean_g, slope, offset;
} tilt;

INLINE tilt tilt_of(const row_stat *s) {
    real slope = s->mean_gx * s->rstd;
    return (tilt){v_set1(s->hi), v_set1(s->rstd), v_set1(s->mean_g), v_set1(slope * s->rstd), v_set1(-(s->lo * s->rstd) * slope)};
}

/* g - mean_g and x - hi are formed first: both are exactly 0 for rows of one column, and dx with them. */
INLINE vec dx_of(tilt k, vec x, vec dy, vec gamma) {
    vec g = v_sub(v_mul(dy, gamma), k.mean_g), bend = v_fma(v_sub(x, k.hi), k.slope, k.offset);
    return v_fms(g, k.rstd, bend);
}

INLINE void put(const pass *p, const writer *w, const tilt *k, int rows, int64_t j, int stream) {
    vec gamma = load_param(p->gamma, j, p->affine);
    vec dx[PAIR] = {v_zero(), v_zero()};
    EACH(rows, dx[r] = dx_of(k[r], v_load(w->x[r], j, p->type), v_load(w->dy[r], j, p->type), gamma););
    EACH(rows, {
        if (stream) v_stream(w->dx[r], j, dx[r], p->type);
        else v_store(w->dx[r], j, dx[r], p->type);
    });
}

INLINE void put_some(const pass *p, const writer *w, const tilt *k, int rows, int64_t j, int64_t n) {
    vec gamma = load_param_some(p->gamma, j, n, p->affine);
    EACH(rows, {
        vec x = v_load_some(w->x[r], j, n, p->type), dy = v_load_some(w->dy[r], j, n, p->type);
        v_store_some(w->dx[r], j, n, dx_of(k[r], x, dy, gamma), p->type);
    });
}

INLINE void put_range(const pass *p, const writer *w, int rows, int64_t j, int64_t end, int stream) {
    tilt k[PAIR];
    EACH(rows, k[r] = tilt_of(&w->stat[r]););
    for (; j + LANES <= end; j += LANES) put(p, w, k, rows, j, stream);
    if (j < end) put_some(p, w, k, rows, j, end - j);
}

INLINE void write_pair(const pass *p, const writer *w, int rows) {
    if (!w->dx[0]) return;
    put_range(p, w, rows, 0, w->peel, 0);
    put_range(p, w, rows, w->peel, p->n, p->stream);
}

INLINE void chunk_values(const moments2 *m, double sums[2 * PAIR]) {
    const vec v[2 * PAIR] = {m->g[0], m->gx[0], m->g[1], m->gx[1]};
    v_sum4(v, sums);
}

INLINE void end_chunk(reader *in, const moments2 *m, int rows, int first) {
    double sums[2 * PAIR];
    chunk_values(m, sums);
    EACH(rows, {
        in->g[r] = first ? (wide){sums[2 * r], 0} : wide_add(in->g[r], sums[2 * r]);
        in->gx[r] = first ? (wide){sums[2 * r + 1], 0} : wide_add(in->gx[r], sums[2 * r + 1]);
    });
}

/* Adds columns [j, b) of a pair. */
INLINE void add_range(const pass *p, const reader *in, const scale *s, moments2 *m, int rows, int64_t j, int64_t b) {
    for (; j + LANES <= b; j += LANES) add(p, in, s, m, rows, j);
    if (j < b) add_some(p, in, s, m, rows, j, b - j);
}

INLINE void add_chunk(const pass *p, const reader *in, moments2 *m, int rows, int64_t a, int64_t b) {
    scale s[PAIR];
    *m = (moments2){{v_zero(), v_zero()}, {v_zero(), v_zero()}};
    EACH(rows, s[r] = scale_of(&in->stat[r]););
    add_range(p, in, s, m, rows, a, b);
}

INLINE void add_pair(const pass *p, reader *in, int rows) {
    for (int64_t a = 0; a < p->n; a += BACKWARD_CHUNK) {
        moments2 m;
        add_chunk(p, in, &m, rows, a, least(p->n, a + BACKWARD_CHUNK));
        end_chunk(in, &m, rows, a == 0);
    }
}

/* Adds columns [a, b) of `in`; meanwhile writes `out`, vectors shifted by its peel, up to the column returned. */
INLINE int64_t add_and_put(const pass *p, reader *in, const writer *out, int64_t a, int64_t b) {
    const int t = p->type;
    moments2 m;
    scale s[PAIR];
    tilt k[PAIR];
    EACH(PAIR, {
        s[r] = scale_of(&in->stat[r]);
        k[r] = tilt_of(&out->stat[r]);
        m.g[r] = m.gx[r] = v_zero();
    });
    int64_t j = a, both = least(b, p->n - out->peel);
    for (; j + LANES <= both; j += LANES) {
        EACH(PAIR, {
            prefetch(at(in->ahead_x[r], j - a, t), LANES * size_of(t));
            prefetch(at(in->ahead_dy[r], j - a, t), LANES * size_of(t));
        });
        add(p, in, s, &m, PAIR, j);
        put(p, out, k, PAIR, j + out->peel, p->stream);
    }
    add_range(p, in, s, &m, PAIR, j, b);
    end_chunk(in, &m, PAIR, a == 0);
    return j > a ? j + out->peel : -1;
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

/* Makes the rows that have been added up the ones to write. */
INLINE void close_pair(const pass *p, reader *in, writer *out, int rows, int64_t row) {
    EACH(rows, {
        out->x[r] = in->x[r];
        out->dy[r] = in->dy[r];
        out->dx[r] = p->c->dx ? at_out(p->c->dx, (row + r) * p->c->dx_row_stride, p->type) : NULL;
        out->stat[r] = in->stat[r];
        out->stat[r].mean_g = (real)mean_of(wide_value(in->g[r]), p->n);
        out->stat[r].mean_gx = (real)mean_of(wide_value(in->gx[r]), p->n);
    });
    out->peel = out->dx[0] ? elements_to_line(out->dx[0], p->n, p->type) : 0;
    in->fresh = 0;
}

INLINE void turn(const pass *p, reader *in, const writer *out, int64_t row, int64_t last) {
    int64_t written = out->peel;
    put_range(p, out, PAIR, 0, out->peel, 0);
    for (int64_t a = 0; a < p->n; a += BACKWARD_CHUNK) {
        int64_t b = least(p->n, a + BACKWARD_CHUNK);
        EACH(PAIR, {
            int64_t next = least(row + PAIR + r, last - 1);
            in->ahead_x[r] = b < p->n ? at(in->x[r], b, p->type) : x_row(p, next);
            in->ahead_dy[r] = b < p->n ? at(in->dy[r], b, p->type) : dy_row(p, next);
        });
        int64_t end = add_and_put(p, in, out, a, b);
        if (end >= 0) written = end;
    }
    put_range(p, out, PAIR, written, p->n, p->stream);
}

INLINE void rows_apart(const pass *p, reader *in, writer *out, int64_t row, int rows) {
    open_pair(p, in, rows, row);
    add_pair(p, in, rows);
    close_pair(p, in, out, rows, row);
    EACH(rows, {
        writer one = {.x = {out->x[r]}, .dy = {out->dy[r]}, .dx = {out->dx[r]}, .stat = {out->stat[r]}};
        one.peel = one.dx[0] ? elements_to_line(one.dx[0], p->n, p->type) : 0;
        write_pair(p, &one, 1);
    });
}

/* Rows whose lines of output begin at different columns are added up together but written one by one. */
INLINE void backward_span(const pass *p, reader *in, int64_t row, int64_t last) {
    writer out;
    int together = p->t->ahead && p->c->dx && p->c->dx_row_stride * size_of(p->type) % 64 == 0 && last - row >= 2 * PAIR;
    if (!together) {
        for (; row + PAIR <= last; row += PAIR) rows_apart(p, in, &out, row, PAIR);
    } else {
        open_pair(p, in, PAIR, row);
        add_pair(p, in, PAIR);
        for (;;) {
            close_pair(p, in, &out, PAIR, row);
            row += PAIR;
            if (row + PAIR > last) break;
            open_pair(p, in, PAIR, row);
            turn(p, in, &out, row, last);
        }
        write_pair(p, &out, PAIR);
    }
    for (; row < last; row++) rows_apart(p, in, &out, row, 1);
}

#endif
