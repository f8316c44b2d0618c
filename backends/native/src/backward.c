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

INLINE void blocks(const struct lnb_task *t, int64_t first, int64_t last, int type, int affine) {
    pass p = pass_of(t, type, affine);
    for (int64_t b = first; b < last; b++) {
        reader in = {.fresh = 1};
        in.dgamma = p.params ? partial(t, b, 0) : NULL;
        in.dbeta = p.params ? partial(t, b, 1) : NULL;
        backward_span(&p, &in, b * t->block_rows, least(p.c->rows, (b + 1) * t->block_rows));
    }
    if (p.stream) v_fence();
}

INLINE row_stat *stat_at(const struct lnb_task *t, int64_t row) {
    return (row_stat *)(void *)(t->rows + row * LNB_ROW_DOUBLES);
}

static void start(const struct lnb_task *t) {
    for (int64_t row = 0; row < t->call->rows; row++) *stat_at(t, row) = read_stats(t->call, row);
}

/* Column split: chunks outside, rows inside, so that the partial sums of a chunk stay in the cache. */
INLINE void sums_of_rows(const struct lnb_task *t, const pass *p, reader *in, int rows, int64_t row, int64_t i) {
    EACH(rows, {
        in->x[r] = x_row(p, row + r);
        in->dy[r] = dy_row(p, row + r);
        in->stat[r] = *stat_at(t, row + r);
    });
    add_chunk(p, in, rows, i * BACKWARD_CHUNK, least(p->n, (i + 1) * BACKWARD_CHUNK));
    double sums[2 * PAIR];
    chunk_values(&in->m, sums);
    EACH(rows, {
        t->sums[(row + r) * t->chunks + i] = (struct lnb_sums){sums[2 * r], sums[2 * r + 1]};
    });
    in->fresh = 0;
}

INLINE void sums(const struct lnb_task *t, int64_t first, int64_t last, int type, int affine) {
    pass p = pass_of(t, type, affine);
    for (int64_t b = 0; b < t->blocks; b++) {
        int64_t end = least(p.c->rows, (b + 1) * t->block_rows);
        reader in = {.fresh = 1};
        in.dgamma = p.params ? partial(t, b, 0) : NULL;
        in.dbeta = p.params ? partial(t, b, 1) : NULL;
        for (int64_t i = first; i < last; i++) {
            int64_t row = b * t->block_rows;
            in.fresh = 1;
            for (; row + PAIR <= end; row += PAIR) sums_of_rows(t, &p, &in, PAIR, row, i);
            for (; row < end; row++) sums_of_rows(t, &p, &in, 1, row, i);
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
        stat_at(t, row)->mean_g = (real)mean_of(wide_value(g), t->call->cols);
        stat_at(t, row)->mean_gx = (real)mean_of(wide_value(gx), t->call->cols);
    }
}

INLINE void columns(const struct lnb_task *t, int64_t first, int64_t last, int type, int affine) {
    pass p = pass_of(t, type, affine);
    int64_t begin = first * BACKWARD_CHUNK, end = least(p.n, last * BACKWARD_CHUNK);
    for (int64_t row = 0; row < p.c->rows && p.c->dx; row++) {
        writer out = {.x = {x_row(&p, row)}, .dy = {dy_row(&p, row)}, .stat = {*stat_at(t, row)}};
        out.dx[0] = at_out(p.c->dx, row * p.c->dx_row_stride, type);
        int64_t head = least(begin + elements_to_line(at(out.dx[0], begin, type), p.n, type), end);
        put_range(&p, &out, 1, begin, head, 0);
        put_range(&p, &out, 1, head, end, p.stream);
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
            const void *q = partial(t, i, which);
            s = v_add(s, n == LANES ? v_load(q, j, REAL_TYPE) : v_load_some(q, j, n, REAL_TYPE));
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
    static void blocks_##name(const struct lnb_task *t, int64_t a, int64_t b) { blocks(t, a, b, type, affine); }       \
    static void sums_##name(const struct lnb_task *t, int64_t a, int64_t b) { sums(t, a, b, type, affine); }           \
    static void columns_##name(const struct lnb_task *t, int64_t a, int64_t b) { columns(t, a, b, type, affine); }     \
    static void reduce_##name(const struct lnb_task *t, int64_t a, int64_t b) { reduce(t, a, b, affine); }             \
    const struct lnb_backward LNB_SYMBOL(backward, LNB_TARGET, name) = {                                               \
        BACKWARD_CHUNK, blocks_##name, start, sums_##name, finish, columns_##name, reduce_##name};

#if LNB_REAL == 64
DEFINE(f64, LNB_F64, LNB_F64)
#else
DEFINE(bf16, LNB_BF16, LNB_BF16)
DEFINE(bf16_f32, LNB_BF16, LNB_F32)
#if !LNB_TARGET_AVX512_BF16 /* which differs from avx512 for these two alone */
DEFINE(f32, LNB_F32, LNB_F32)
DEFINE(f16, LNB_F16, LNB_F16)
DEFINE(f16_f32, LNB_F16, LNB_F32)
#endif
#endif
