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
    const void *x[PAIR], *dy[PAIR], *ahead[PAIR];
    void *dx[PAIR];
    row_stat stat[PAIR];
    gradients to;
    int64_t peel;
} writer;

/* A row_stat as vectors: dx = (g - mean_g) * rstd - xhat * slope. */
typedef struct {
    scale s;
    vec mean_g, slope;
} tilt;

INLINE tilt tilt_of(const row_stat *s) { return (tilt){scale_of(s), v_set1(s->mean_g), v_set1(s->mean_gx * s->rstd)}; }

/* g - mean_g and xhat are exactly 0 for rows of one column, and dx with them. */
INLINE vec dx_of(tilt k, vec dy, vec gamma, vec xhat) {
    return v_fms(v_sub(v_mul(dy, gamma), k.mean_g), k.s.rstd, v_mul(xhat, k.slope));
}

/* What a loop over columns does; known where it is compiled. */
typedef struct {
    int rows, params, dx, stream, ahead;
} work;

INLINE columns_of_rows read_pair(const pass *p, const writer *w, const tilt *k, int rows, int64_t j) {
    const scale s[PAIR] = {k[0].s, k[rows - 1].s};
    return read_rows(w->x, w->dy, s, rows, j, p->type);
}

/* All that is read comes before what is written: dx may lie over dy or x. */
INLINE void put(const pass *p, const writer *w, const tilt *k, work todo, int64_t j) {
    vec gamma = load_param(p->gamma, j, p->affine), dx[PAIR] = {v_zero(), v_zero()};
    columns_of_rows v = read_pair(p, w, k, todo.rows, j);
    EACH(todo.rows, dx[r] = dx_of(k[r], v.dy[r], gamma, v.xhat[r]););
    if (todo.params) add_params(w->to, &v, todo.rows, j, LANES);
    if (!todo.dx) return;
    EACH(todo.rows, {
        if (todo.stream) v_stream(w->dx[r], j, dx[r], p->type);
        else v_store(w->dx[r], j, dx[r], p->type);
    });
}

/* Two vectors of columns, written together. */
INLINE void put_two(const pass *p, const writer *w, const tilt *k, work todo, int64_t j) {
    const int64_t i = j + LANES;
    vec low[PAIR] = {v_zero(), v_zero()}, high[PAIR] = {v_zero(), v_zero()};
    vec gamma = load_param(p->gamma, j, p->affine), next = load_param(p->gamma, i, p->affine);
    columns_of_rows v = read_pair(p, w, k, todo.rows, j), u = read_pair(p, w, k, todo.rows, i);
    EACH(todo.rows, {
        low[r] = dx_of(k[r], v.dy[r], gamma, v.xhat[r]);
        high[r] = dx_of(k[r], u.dy[r], next, u.xhat[r]);
    });
    if (todo.params) add_params(w->to, &v, todo.rows, j, LANES);
    if (todo.params) add_params(w->to, &u, todo.rows, i, LANES);
    if (!todo.dx) return;
    EACH(todo.rows, {
        if (todo.stream) v_stream_two(w->dx[r], j, low[r], high[r], p->type);
        else v_store_two(w->dx[r], j, low[r], high[r], p->type);
    });
}

INLINE void put_some(const pass *p, const writer *w, const tilt *k, work todo, int64_t j, int64_t n) {
    const scale s[PAIR] = {k[0].s, k[todo.rows - 1].s};
    vec gamma = load_param_some(p->gamma, j, n, p->affine);
    columns_of_rows v = read_some(w->x, w->dy, s, todo.rows, j, n, p->type);
    if (todo.params) add_params(w->to, &v, todo.rows, j, n);
    if (!todo.dx) return;
    EACH(todo.rows, v_store_some(w->dx[r], j, n, dx_of(k[r], v.dy[r], gamma, v.xhat[r]), p->type););
}

/* Columns [j, end), with vectors that begin at j. */
INLINE void put_columns(const pass *p, const writer *w, work todo, int64_t j, int64_t end) {
    const int64_t width = V_WRITES_TWO(p->type) ? 2 * LANES : LANES;
    const writer own = *w; /* a copy that no store can change stays in registers */
    tilt k[PAIR];
    EACH(todo.rows, k[r] = tilt_of(&own.stat[r]););
    for (; j + width <= end; j += width) {
        if (todo.ahead) ask(own.ahead, j, width, p->type);
        if (width > LANES) put_two(p, &own, k, todo, j);
        else put(p, &own, k, todo, j);
    }
    if (width > LANES && j + LANES <= end) {
        put(p, &own, k, todo, j);
        j += LANES;
    }
    if (j < end) put_some(p, &own, k, todo, j, end - j);
}

/* The same, with a loop compiled for what is to be done. */
INLINE void put_range(const pass *p, const writer *w, int rows, int64_t j, int64_t end, int stream) {
    if (j == end) return;
    if (!w->dx[0]) put_columns(p, w, (work){rows, 1, 0, 0, 0}, j, end);
    else if (p->late && stream && w->ahead[0]) put_columns(p, w, (work){rows, 1, 1, 1, 1}, j, end);
    else if (p->late && stream) put_columns(p, w, (work){rows, 1, 1, 1, 0}, j, end);
    else if (p->late) put_columns(p, w, (work){rows, 1, 1, 0, 0}, j, end);
    else if (stream && w->ahead[0]) put_columns(p, w, (work){rows, 0, 1, 1, 1}, j, end);
    else if (stream) put_columns(p, w, (work){rows, 0, 1, 1, 0}, j, end);
    else if (w->ahead[0]) put_columns(p, w, (work){rows, 0, 1, 0, 1}, j, end);
    else put_columns(p, w, (work){rows, 0, 1, 0, 0}, j, end);
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
    out->stat[r] = p->c->dx ? summed(p, in, r) : in->stat[r];
    out->peel = out->dx[r] ? elements_to_line(out->dx[r], p->n, p->type) : 0;
}

/* What one or two rows ask for: x in the first reading and dy in the second, of as many rows after them. */
INLINE void ask_after(const pass *p, reader *in, writer *out, int rows, int64_t row, int ahead) {
    EACH(rows, {
        const int64_t next = least(row + rows + r, p->c->rows - 1);
        in->ahead[r] = ahead ? x_row(p, next) : NULL;
        out->ahead[r] = ahead ? dy_row(p, next) : NULL;
    });
}

/* Two rows whose lines of output begin at the same columns, or one. */
INLINE void rows_together(const pass *p, gradients to, int64_t row, int rows, int ahead) {
    reader in;
    writer out = {.to = to};
    in.to = to;
    ask_after(p, &in, &out, rows, row, ahead);
    open_pair(p, &in, rows, row);
    if (p->c->dx) add_pair(p, &in, rows);
    EACH(rows, close_row(p, &in, &out, r, row + r););
    write_pair(p, &out, rows);
}

/* Two rows that are added up together and written one by one. */
INLINE void rows_apart(const pass *p, gradients to, int64_t row) {
    reader in;
    in.to = to;
    in.ahead[0] = NULL;
    open_pair(p, &in, PAIR, row);
    add_pair(p, &in, PAIR);
    for (int i = 0; i < PAIR; i++) {
        writer out = {.to = to};
        reader one = {.x = {in.x[i]}, .dy = {in.dy[i]}, .stat = {in.stat[i]}, .g = {in.g[i]}, .gx = {in.gx[i]}};
        close_row(p, &one, &out, 0, row + i);
        write_pair(p, &out, 1);
    }
}

/* Reads and writes rows of one block. */
INLINE void backward_span(const pass *p, gradients to, int64_t row, int64_t last) {
    const int together = !p->c->dx || p->c->dx_row_stride * size_of(p->type) % 64 == 0;
    const int ahead = LANES > 1 && p->t->ahead && p->c->dx;
    for (; together && row + PAIR <= last; row += PAIR) rows_together(p, to, row, PAIR, ahead);
    for (; row + PAIR <= last; row += PAIR) rows_apart(p, to, row);
    if (row < last) rows_together(p, to, row, 1, 0);
}

#endif
