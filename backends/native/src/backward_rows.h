/*
 * Backward, rows. Rows are taken by pairs. A pair is first added up: sums of g and g * xhat for each row, and the pair's
 * share of dgamma and dbeta, which is formed in registers and then added to the partial sums of the block, so those are
 * loaded and stored once for two rows. Then dx is written. x and dy are read from memory once; the second reading finds
 * them in the cache. For tensors larger than the cache pairs go in groups, tile by tile, and both loops ask for a part of
 * the next group, so that the memory is never idle. (One loop that adds up and writes, as forward has it, is slower
 * here: it loads from more places than the first-level cache has ways.)
 */
#ifndef LNB_BACKWARD_ROWS_H
#define LNB_BACKWARD_ROWS_H

#include "statistics.h"

/* One chain per row is enough: a turn of the loop takes longer than an addition. */
enum { BACKWARD_CHUNK = LANES == 1 ? 32 : 64 * LANES, REAL_TYPE = LNB_REAL == 32 ? LNB_F32 : LNB_F64 };

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
    void *dgamma, *dbeta; /* where the gradients of the parameters go */
    int fresh;            /* nothing is there yet */
} reader;

/* A pair whose dx is being written. */
typedef struct {
    const void *x[PAIR], *dy[PAIR], *ahead[PAIR];
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

INLINE moments2 moments2_zero(void) { return (moments2){{v_zero(), v_zero()}, {v_zero(), v_zero()}}; }

INLINE void ask(const void *const ahead[PAIR], int64_t j, int64_t n, int t) {
    EACH(PAIR, prefetch(at(ahead[r], j, t), n * size_of(t)););
}

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

/* Two vectors of columns, written together. */
INLINE void put_two(const pass *p, const writer *w, const tilt *k, int rows, int64_t j, int stream) {
    vec low[PAIR] = {v_zero(), v_zero()}, high[PAIR] = {v_zero(), v_zero()};
    const int64_t i = j + LANES;
    vec gamma = load_param(p->gamma, j, p->affine), next = load_param(p->gamma, i, p->affine);
    EACH(rows, low[r] = dx_of(k[r], v_load(w->x[r], j, p->type), v_load(w->dy[r], j, p->type), gamma););
    EACH(rows, high[r] = dx_of(k[r], v_load(w->x[r], i, p->type), v_load(w->dy[r], i, p->type), next););
    EACH(rows, {
        if (stream) v_stream_two(w->dx[r], j, low[r], high[r], p->type);
        else v_store_two(w->dx[r], j, low[r], high[r], p->type);
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
    const writer own = *w; /* a copy that no store can change stays in registers */
    EACH(rows, k[r] = tilt_of(&own.stat[r]););
    if (V_WRITES_TWO(p->type)) {
        for (; j + 2 * LANES <= end; j += 2 * LANES) {
            if (own.ahead[0]) ask(own.ahead, j, 2 * LANES, p->type);
            put_two(p, &own, k, rows, j, stream);
        }
    } else if (own.ahead[0]) {
        for (; j + LANES <= end; j += LANES) {
            ask(own.ahead, j, LANES, p->type);
            put(p, &own, k, rows, j, stream);
        }
    }
    for (; j + LANES <= end; j += LANES) put(p, &own, k, rows, j, stream);
    if (j < end) put_some(p, &own, k, rows, j, end - j);
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

/* Adds columns [j, end) of a pair. */
INLINE void add_range(const pass *p, const reader *in, const scale *s, moments2 *m, int rows, int64_t j, int64_t end) {
    const reader own = *in; /* a copy that no store can change stays in registers */
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

INLINE void end_chunk(reader *in, int rows, int first) {
    double sums[2 * PAIR];
    chunk_values(&in->m, sums);
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

/* Makes the rows that have been added up the ones to write. */
INLINE void close_pair(const pass *p, const reader *in, writer *out, int rows, int64_t row) {
    EACH(rows, {
        out->x[r] = in->x[r];
        out->dy[r] = in->dy[r];
        out->dx[r] = p->c->dx ? at_out(p->c->dx, (row + r) * p->c->dx_row_stride, p->type) : NULL;
        out->stat[r] = in->stat[r];
        out->stat[r].mean_g = (real)mean_of(wide_value(in->g[r]), p->n);
        out->stat[r].mean_gx = (real)mean_of(wide_value(in->gx[r]), p->n);
    });
    out->peel = out->dx[0] ? elements_to_line(out->dx[0], p->n, p->type) : 0;
}

/* One or two rows for which no memory is asked ahead, and whose lines of output may begin at different columns. */
INLINE void rows_apart(const pass *p, reader *in, int64_t row, int rows) {
    writer out;
    open_pair(p, in, rows, row);
    add_pair(p, in, rows);
    close_pair(p, in, &out, rows, row);
    EACH(rows, {
        writer one = {.x = {out.x[r]}, .dy = {out.dy[r]}, .dx = {out.dx[r]}, .stat = {out.stat[r]}};
        one.peel = one.dx[0] ? elements_to_line(one.dx[0], p->n, p->type) : 0;
        write_pair(p, &one, 1);
    });
}

/* Pairs that are added up, then written, tile by tile. Meanwhile x and dy of as many further rows are asked for. */
typedef struct {
    int pairs;
    reader in[GROUP / PAIR];
    writer out[GROUP / PAIR];
} group;

INLINE void open_group(const pass *p, group *g, const reader *place, int64_t row) {
    for (int i = 0; i < g->pairs; i++) {
        reader *in = &g->in[i];
        *in = *place;
        in->fresh = place->fresh && !i;
        open_pair(p, in, PAIR, row + i * PAIR);
        EACH(PAIR, {
            int64_t next = least(row + (g->pairs + i) * PAIR + r, p->c->rows - 1);
            in->ahead[r] = x_row(p, next);
            g->out[i].ahead[r] = dy_row(p, next);
        });
    }
}

INLINE void add_group(const pass *p, group *g) {
    for (int64_t tile = 0; tile < tiles_of(p->n); tile++) {
        span s = tile_of(tile, p->n);
        for (int i = 0; i < g->pairs; i++) {
            add_chunk(p, &g->in[i], PAIR, s.begin, s.end);
            if (s.end % BACKWARD_CHUNK == 0 || s.end == p->n) end_chunk(&g->in[i], PAIR, s.end <= BACKWARD_CHUNK);
        }
    }
}

INLINE void write_group(const pass *p, const group *g) {
    for (int i = 0; i < g->pairs; i++) put_range(p, &g->out[i], PAIR, 0, g->out[i].peel, 0);
    for (int64_t tile = 0; tile < tiles_of(p->n); tile++) {
        for (int i = 0; i < g->pairs; i++) {
            span s = shifted(tile_of(tile, p->n), g->out[i].peel, p->n);
            put_range(p, &g->out[i], PAIR, s.begin, s.end, p->stream);
        }
    }
}

INLINE int64_t by_groups(const pass *p, reader *place, int64_t row, int64_t last) {
    const int most = group_rows(p->n * size_of(p->type)) / PAIR;
    while (row + PAIR <= last) {
        group g;
        g.pairs = (int)least(most, (last - row) / PAIR);
        open_group(p, &g, place, row);
        if (most > 1) add_group(p, &g);
        else add_pair(p, &g.in[0], PAIR);
        for (int i = 0; i < g.pairs; i++) close_pair(p, &g.in[i], &g.out[i], PAIR, row + i * PAIR);
        if (most > 1) write_group(p, &g);
        else write_pair(p, &g.out[0], PAIR);
        row += g.pairs * PAIR;
        place->fresh = 0;
    }
    return row;
}

INLINE int64_t some_rows(const pass *p, reader *place, int64_t row, int64_t last, int rows) {
    for (; row + rows <= last; row += rows) {
        rows_apart(p, place, row, rows);
        place->fresh = 0;
    }
    return row;
}

/* Adds up and writes rows of one block; `place`: a reader that knows where the gradients of the parameters go. */
INLINE void backward_span(const pass *p, reader *place, int64_t row, int64_t last) {
    int whole_lines = p->c->dx && p->c->dx_row_stride * size_of(p->type) % 64 == 0;
    if (LANES > 1 && p->t->ahead && whole_lines) row = by_groups(p, place, row, last);
    row = some_rows(p, place, row, last, PAIR);
    some_rows(p, place, row, last, 1);
}

#endif
