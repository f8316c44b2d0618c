/*
 * Backward, whole calls. The rows of a block add their gradients of gamma and beta to one place; blocks are fixed by the
 * number of rows alone and added up in order afterwards, so the bits do not depend on who computed which block. When
 * rows are few and long, chunks of columns are shared out instead, in three phases, with the same bits.
 */
#include "backward_rows.h"

INLINE void *partial(const struct lnb_task *t, int64_t block, int which) {
    if (t->direct[which]) return t->direct[which];
    return (real *)t->partials + (2 * block + which) * t->pitch;
}

INLINE gradients gradients_of(const struct lnb_task *t, int64_t block) {
    if (!t->want_params) return (gradients){NULL, NULL};
    return (gradients){partial(t, block, 0), partial(t, block, 1)};
}

INLINE void clear(gradients to, int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end && to.dgamma; j += LANES) {
        v_store_lanes(to.dgamma, j, least(end - j, LANES), v_zero(), REAL_TYPE);
        v_store_lanes(to.dbeta, j, least(end - j, LANES), v_zero(), REAL_TYPE);
    }
}

/* Past the cache: they are read again when all blocks are done. */
INLINE void move(gradients from, gradients to, int64_t n) {
    for (int64_t j = 0; j < n; j += LANES) {
        v_stream(to.dgamma, j, v_load(from.dgamma, j, REAL_TYPE), REAL_TYPE);
        v_stream(to.dbeta, j, v_load(from.dbeta, j, REAL_TYPE), REAL_TYPE);
    }
}

/*
 * Of large tensors all blocks are summed in the place of the last, which stays in the cache, and moved: memory that
 * is written for the first time would have to be waited for, with every store behind it.
 */
INLINE void blocks(const struct lnb_task *t, int64_t first, int64_t last, int type, int affine) {
    const pass p = pass_of(t, type, affine);
    for (int64_t b = first; b < last; b++) {
        const int64_t place = t->ahead ? last - 1 : b;
        const gradients to = gradients_of(t, place);
        clear(to, 0, p.n);
        backward_span(&p, to, b * t->block_rows, least(p.c->rows, (b + 1) * t->block_rows));
        if (to.dgamma && place != b) move(to, gradients_of(t, b), p.n);
    }
    if (t->stream || t->ahead) v_fence();
}

INLINE row_stat *stat_at(const struct lnb_task *t, int64_t row) {
    return (row_stat *)(void *)(t->rows + row * LNB_ROW_DOUBLES);
}

INLINE void start(const struct lnb_task *t, int type) {
    for (int64_t row = 0; row < t->call->rows; row++) *stat_at(t, row) = read_stats(t->call, row, type);
}

/* Column split, first reading: the sums of a chunk of one row or two alike. */
INLINE void sum_chunk_of(const struct lnb_task *t, const pass *p, reader *in, int rows, int64_t row, int64_t i) {
    double sums[2 * PAIR];
    add_chunk(p, in, rows, i * BACKWARD_CHUNK, least(p->n, (i + 1) * BACKWARD_CHUNK));
    chunk_values(in, sums);
    EACH(rows, {
        t->sums[(row + r) * t->chunks + i] = (struct lnb_sums){sums[2 * r], sums[2 * r + 1]};
    });
}

INLINE void sums_of_rows(const struct lnb_task *t, const pass *p, gradients to, int rows, int64_t row, int64_t i) {
    reader in = {.to = to};
    EACH(rows, {
        in.x[r] = x_row(p, row + r);
        in.dy[r] = dy_row(p, row + r);
        in.stat[r] = *stat_at(t, row + r);
    });
    if (are_alike(&in, rows, p->type)) {
        sum_chunk_of(t, p, &in, rows, row, i);
        return;
    }
    for (int r = 0; r < PAIR; r++) {
        reader one = row_of(&in, r);
        sum_chunk_of(t, p, &one, 1, row + r, i);
    }
}

INLINE void sums(const struct lnb_task *t, int64_t first, int64_t last, int type, int affine) {
    const pass p = pass_of(t, type, affine);
    for (int64_t b = 0; b < t->blocks; b++) {
        const gradients to = gradients_of(t, b);
        const int64_t end = least(p.c->rows, (b + 1) * t->block_rows);
        for (int64_t i = first; i < last; i++) {
            int64_t row = b * t->block_rows;
            if (p.early) clear(to, i * BACKWARD_CHUNK, least(p.n, (i + 1) * BACKWARD_CHUNK));
            for (; row + PAIR <= end; row += PAIR) sums_of_rows(t, &p, to, PAIR, row, i);
            if (row < end) sums_of_rows(t, &p, to, 1, row, i);
        }
    }
}

static void finish(const struct lnb_task *t) {
    for (int64_t row = 0; row < t->call->rows; row++) {
        wide g = {0, 0}, gx = {0, 0};
        for (int64_t i = 0; i < t->chunks; i++) {
            const struct lnb_sums *s = &t->sums[row * t->chunks + i];
            g = i ? wide_add(g, s->first) : (wide){s->first, 0};
            gx = i ? wide_add(gx, s->second) : (wide){s->second, 0};
        }
        *stat_at(t, row) = summed(*stat_at(t, row), g, gx, t->call->cols);
    }
}

/* Column split, second reading: of a chunk of one row. */
INLINE void put_chunk(const struct lnb_task *t, const pass *p, gradients to, int64_t row, int64_t begin, int64_t end) {
    writer out = {.x = {x_row(p, row)}, .dy = {dy_row(p, row)}, .stat = {*stat_at(t, row)}, .to = to};
    int64_t head = 0;
    if (p->c->dx) {
        out.dx[0] = at_out(p->c->dx, row * p->c->dx_row_stride, p->type);
        head = elements_to_line(at(out.dx[0], begin, p->type), p->n, p->type);
    }
    head = least(begin + head, end);
    put_range(p, &out, 1, begin, head, 0);
    put_range(p, &out, 1, head, end, p->stream);
}

/* Chunks outside, rows inside, in both readings: gamma and the partial sums of a chunk stay in the cache. */
INLINE void columns(const struct lnb_task *t, int64_t first, int64_t last, int type, int affine) {
    const pass p = pass_of(t, type, affine);
    for (int64_t b = 0; b < t->blocks; b++) {
        const gradients to = gradients_of(t, b);
        const int64_t end = least(p.c->rows, (b + 1) * t->block_rows);
        for (int64_t i = first; i < last; i++) {
            const int64_t from = i * BACKWARD_CHUNK, until = least(p.n, from + BACKWARD_CHUNK);
            if (p.late) clear(to, from, until);
            for (int64_t row = b * t->block_rows; row < end; row++) put_chunk(t, &p, to, row, from, until);
        }
    }
    if (t->stream) v_fence();
}

/* The sum over blocks of one vector of columns: runs of about sqrt(blocks), then the runs. */
INLINE vec sum_blocks(const struct lnb_task *t, int which, int64_t j, int64_t n) {
    int64_t run = 1;
    while (run * run < t->blocks) run++;
    vec total = v_zero();
    for (int64_t b = 0; b < t->blocks; b += run) {
        vec s = v_zero();
        for (int64_t i = b; i < least(b + run, t->blocks); i++) {
            s = v_add(s, v_load_lanes(partial(t, i, which), j, n, REAL_TYPE));
        }
        total = v_add(total, s);
    }
    return total;
}

INLINE void reduce(const struct lnb_task *t, int64_t first, int64_t last, int affine) {
    int64_t end = least(t->call->cols, last * BACKWARD_CHUNK);
    for (int which = 0; which < 2; which++) {
        void *out = which ? t->call->dbeta : t->call->dgamma;
        if (!out || t->direct[which]) continue;
        int64_t j = first * BACKWARD_CHUNK;
        for (; j + LANES <= end; j += LANES) v_store(out, j, sum_blocks(t, which, j, LANES), affine);
        if (j < end) v_store_some(out, j, end - j, sum_blocks(t, which, j, end - j), affine);
    }
}

#define DEFINE(name, type, affine)                                                                                     \
    static void start_##name(const struct lnb_task *t) { start(t, type); }                                             \
    static void blocks_##name(const struct lnb_task *t, int64_t a, int64_t b) { blocks(t, a, b, type, affine); }       \
    static void sums_##name(const struct lnb_task *t, int64_t a, int64_t b) { sums(t, a, b, type, affine); }           \
    static void columns_##name(const struct lnb_task *t, int64_t a, int64_t b) { columns(t, a, b, type, affine); }     \
    static void reduce_##name(const struct lnb_task *t, int64_t a, int64_t b) { reduce(t, a, b, affine); }             \
    const struct lnb_backward LNB_SYMBOL(backward, LNB_TARGET, name) = {                                               \
        BACKWARD_CHUNK, blocks_##name, start_##name, sums_##name, finish, columns_##name, reduce_##name};

FOR_TYPES(DEFINE)
