/*
 * Backward, second reading of a row: dx is written, and, if that was not done before, the row is added to dgamma and dbeta.
 * Rows are taken by pairs, so gamma and the partial sums are loaded once for two rows. x and dy are read from memory once;
 * the second reading finds them in the cache. For tensors larger than the cache both readings ask for a part of the next
 * pair, so that the memory is never idle. (One loop that adds up and writes, as forward has it, is slower here: it loads from
 * more places than the first-level cache has ways.)
 */
#ifndef LNB_BACKWARD_ROWS_H
#define LNB_BACKWARD_ROWS_H

#include "backward_sums.h"

/* A pair whose dx is being written, or, where none is wanted (NULL), that is only added to the gradients of the parameters. */
typedef struct {
    const void *x[PAIR], *dy[PAIR];
    void *dx[PAIR];
    int64_t ahead;
    row_stat stat[PAIR];
    gradients to;
    int64_t peel;
} writer;

/*
 * A row_stat as vectors: dx = (g - mean_g) * rstd - xhat * slope. g - mean_g and xhat are exactly 0 for rows of one column, and dx
 * with them. Centred rows are longer: dx = g * rstd + level - xhat * slope, one operation less.
 */
typedef struct {
    scale s;
    vec mean_g, level, slope, fall;
} tilt;

INLINE tilt tilt_of(const row_stat *s) {
    const real slope = s->mean_gx * s->rstd;
    return (tilt){scale_of(s), v_set1(s->mean_g), v_set1(-(s->mean_g * s->rstd)), v_set1(slope), v_set1(-slope)};
}

INLINE vec dx_of(tilt k, vec dy, vec gamma, vec xhat, int centred) {
    vec g = v_mul(dy, gamma);
    if (centred) return v_fma(xhat, k.fall, v_fma(g, k.s.rstd, k.level));
    return v_fms(v_sub(g, k.mean_g), k.s.rstd, v_mul(xhat, k.slope));
}

INLINE columns_of_rows read_pair(const pass *p, const writer *w, const tilt *k, work todo, int64_t j, int64_t n) {
    const scale s[PAIR] = {k[0].s, k[todo.rows - 1].s};
    return read_rows(w->x, w->dy, s, todo, j, n, p->type);
}

/* All that is read comes before what is written: dx may lie over dy or x. */
INLINE void put(const pass *p, const writer *w, const tilt *k, work todo, int64_t j, int64_t n) {
    vec gamma = load_param_lanes(p->gamma, j, n, p->affine), dx[PAIR] = {v_zero(), v_zero()};
    columns_of_rows v = read_pair(p, w, k, todo, j, n);
    EACH(todo.rows, dx[r] = dx_of(k[r], v.dy[r], gamma, v.xhat[r], todo.centred););
    if (todo.params) add_params(w->to, &v, todo.rows, j, n);
    if (!todo.dx) return;
    EACH(todo.rows, {
        if (todo.stream && n == LANES) v_stream(w->dx[r], j, dx[r], p->type);
        else v_store_lanes(w->dx[r], j, n, dx[r], p->type);
    });
}

/* Two vectors of columns, written together. */
INLINE void put_two(const pass *p, const writer *w, const tilt *k, work todo, int64_t j) {
    const int64_t i = j + LANES;
    vec low[PAIR] = {v_zero(), v_zero()}, high[PAIR] = {v_zero(), v_zero()};
    vec gamma = load_param(p->gamma, j, p->affine), next = load_param(p->gamma, i, p->affine);
    columns_of_rows v = read_pair(p, w, k, todo, j, LANES), u = read_pair(p, w, k, todo, i, LANES);
    EACH(todo.rows, {
        low[r] = dx_of(k[r], v.dy[r], gamma, v.xhat[r], todo.centred);
        high[r] = dx_of(k[r], u.dy[r], next, u.xhat[r], todo.centred);
    });
    if (todo.params) add_params(w->to, &v, todo.rows, j, LANES);
    if (todo.params) add_params(w->to, &u, todo.rows, i, LANES);
    if (!todo.dx) return;
    EACH(todo.rows, {
        if (todo.stream) v_stream_two(w->dx[r], j, low[r], high[r], p->type);
        else v_store_two(w->dx[r], j, low[r], high[r], p->type);
    });
}

/* Columns [j, end), with vectors that begin at j. */
INLINE void put_columns_as(const pass *p, const writer *w, work todo, int64_t j, int64_t end) {
    const int64_t width = V_WRITES_TWO(p->type) ? 2 * LANES : LANES;
    const writer own = *w; /* a copy that no store can change stays in registers */
    tilt k[PAIR];
    EACH(todo.rows, k[r] = tilt_of(&own.stat[r]););
    for (; j + width <= end; j += width) {
        if (todo.ahead) ask(own.dy, todo.rows, j + own.ahead, width, p->type);
        if (width > LANES) put_two(p, &own, k, todo, j);
        else put(p, &own, k, todo, j, LANES);
    }
    if (width > LANES && j + LANES <= end) {
        put(p, &own, k, todo, j, LANES);
        j += LANES;
    }
    if (j < end) put(p, &own, k, todo, j, end - j);
}

INLINE void put_columns(const pass *p, const writer *w, work todo, int64_t j, int64_t end) {
    const work centred = {todo.rows, 1, todo.params, todo.dx, todo.stream, todo.ahead};
    if (is_centred(&w->stat[0], p->type)) put_columns_as(p, w, centred, j, end);
    else put_columns_as(p, w, todo, j, end);
}

/* The same, with a loop compiled for what is to be done. */
INLINE void put_range(const pass *p, const writer *w, int rows, int64_t j, int64_t end, int stream) {
    if (j == end) return;
    if (!w->dx[0]) put_columns(p, w, (work){rows, 0, 1, 0, 0, 0}, j, end);
    else if (p->late && stream && w->ahead) put_columns(p, w, (work){rows, 0, 1, 1, 1, 1}, j, end);
    else if (p->late && stream) put_columns(p, w, (work){rows, 0, 1, 1, 1, 0}, j, end);
    else if (p->late) put_columns(p, w, (work){rows, 0, 1, 1, 0, 0}, j, end);
    else if (stream && w->ahead) put_columns(p, w, (work){rows, 0, 0, 1, 1, 1}, j, end);
    else if (stream) put_columns(p, w, (work){rows, 0, 0, 1, 1, 0}, j, end);
    else if (w->ahead) put_columns(p, w, (work){rows, 0, 0, 1, 0, 1}, j, end);
    else put_columns(p, w, (work){rows, 0, 0, 1, 0, 0}, j, end);
}

INLINE void write_pair(const pass *p, const writer *w, int rows) {
    put_range(p, w, rows, 0, w->peel, 0);
    put_range(p, w, rows, w->peel, p->n, p->stream);
}

/* Row r of a pair that has been added up, as one to write. */
INLINE void close_row(const pass *p, const reader *in, writer *out, int r, int64_t row) {
    out->x[r] = in->x[r];
    out->dy[r] = in->dy[r];
    out->dx[r] = p->c->dx ? at_out(p->c->dx, row * p->c->dx_row_stride, p->type) : NULL;
    out->stat[r] = p->c->dx ? summed(in->stat[r], in->g[r], in->gx[r], p->n) : in->stat[r];
    out->peel = out->dx[r] ? elements_to_line(out->dx[r], p->n, p->type) : 0;
}

/* How far ahead memory is asked for, in bytes of a tensor: what a pair asks for late must have come when the next begins. */
enum { BACKWARD_LEAD = 8 * 1024 };

/* What one or two rows ask for: x in the first reading and dy in the second, of as many rows after them. */
INLINE void ask_after(const pass *p, reader *in, writer *out, int rows, int64_t row, int ahead) {
    const int64_t lead = pairs_of(BACKWARD_LEAD, p->n * size_of(p->type));
    const int64_t by = ahead ? least(lead, p->c->rows - rows - row) : 0;
    in->ahead = by * p->c->x_row_stride;
    out->ahead = by * p->c->dy_row_stride;
}

/* Two rows alike whose lines of output begin at the same columns, or one. */
INLINE void rows_together(const pass *p, reader *in, int64_t row, int rows, int ahead) {
    writer out = {.to = in->to};
    ask_after(p, in, &out, rows, row, ahead);
    if (p->c->dx) add_pair(p, in, rows);
    EACH(rows, close_row(p, in, &out, r, row + r););
    write_pair(p, &out, rows);
}

INLINE reader row_of(const reader *in, int r) {
    return (reader){.x = {in->x[r]}, .dy = {in->dy[r]}, .stat = {in->stat[r]}, .g = {in->g[r]}, .gx = {in->gx[r]},
                    .to = in->to, .ahead = in->ahead};
}

/* Two rows that are written one by one, and, unless they are alike, added up one by one. */
INLINE void rows_apart(const pass *p, reader *in, int64_t row, int ahead) {
    const int alike = are_alike(in, PAIR, p->type);
    writer out = {.to = in->to};
    ask_after(p, in, &out, PAIR, row, ahead);
    if (alike && p->c->dx) add_pair(p, in, PAIR);
    for (int i = 0; i < PAIR; i++) {
        reader one = row_of(in, i);
        if (!alike && p->c->dx) add_pair(p, &one, 1);
        close_row(p, &one, &out, 0, row + i);
        write_pair(p, &out, 1);
    }
}

/* Reads and writes rows of one block. */
INLINE void backward_span(const pass *p, gradients to, int64_t row, int64_t last) {
    const int together = !p->c->dx || p->c->dx_row_stride * size_of(p->type) % 64 == 0;
    const int ahead = LANES > 1 && p->t->ahead && p->c->dx;
    for (int rows = PAIR; row < last; row += rows) {
        reader in; /* not cleared: that would take as long as a short row */
        in.to = to;
        in.ahead = 0;
        if (row + PAIR > last) rows = 1;
        open_pair(p, &in, rows, row);
        if (rows == 1) rows_together(p, &in, row, 1, 0);
        else if (together && are_alike(&in, PAIR, p->type)) rows_together(p, &in, row, PAIR, ahead);
        else rows_apart(p, &in, row, ahead);
    }
}

#endif
