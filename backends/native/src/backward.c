/*
 * Backward. As in forward, rows are taken in groups of two and one loop adds up the next group (sums of g and g * xhat,
 * and the row's share of dgamma and dbeta) while it writes dx of the present one, so x and dy are read from memory
 * once. The shares of a group are added to each other first and then to the partial sums of their block of rows,
 * which stay in the cache: they are loaded and stored once for two rows. Blocks are fixed by the number of rows alone
 * and added up in order afterwards, so the bits do not depend on who computed which block.
 */
#include "layer_norm.h"

/* One chain per row is enough: a turn of the loop takes longer than an addition. */
enum { BACKWARD_CHUNK = LANES == 1 ? 32 : 64 * LANES, REAL_TYPE = LNB_REAL == 32 ? LNB_F32 : LNB_F64 };

/* A group that is being added up, and where the gradients of the parameters go. */
typedef struct {
    const void *x[PAIR], *dy[PAIR], *ahead_x[PAIR], *ahead_dy[PAIR];
    row_stat stat[PAIR];
    wide g[PAIR], gx[PAIR];
    void *dgamma, *dbeta;
    int fresh; /* nothing is in dgamma and dbeta yet */
} reader;

/* A group whose dx is being written. */
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
    vec dx[PAIR];
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

INLINE void write_group(const pass *p, const writer *w, int rows) {
    if (!w->dx[0]) return;
    put_range(p, w, rows, 0, w->peel, 0);
    put_range(p, w, rows, w->peel, p->n, p->stream);
}

INLINE void chunk_values(const moments2 *m, int rows, double sums[2 * PAIR]) {
    const vec v[2 * PAIR] = {m->g[0], m->gx[0], rows > 1 ? m->g[1] : v_zero(), rows > 1 ? m->gx[1] : v_zero()};
    v_sum4(v, sums);
}

INLINE void end_chunk(reader *in, const moments2 *m, int rows, int first) {
    double sums[2 * PAIR];
    chunk_values(m, rows, sums);
    EACH(rows, {
        in->g[r] = first ? (wide){sums[2 * r], 0} : wide_add(in->g[r], sums[2 * r]);
        in->gx[r] = first ? (wide){sums[2 * r + 1], 0} : wide_add(in->gx[r], sums[2 * r + 1]);
    });
}

/* Adds columns [j, b) of a group. */
INLINE void add_range(const pass *p, const reader *in, const scale *s, moments2 *m, int rows, int64_t j, int64_t b) {
    for (; j + LANES <= b; j += LANES) add(p, in, s, m, rows, j);
    if (j < b) add_some(p, in, s, m, rows, j, b - j);
}

INLINE void add_chunk(const pass *p, const reader *in, moments2 *m, int rows, int64_t a, int64_t b) {
    scale s[PAIR];
    EACH(rows, {
        s[r] = scale_of(&in->stat[r]);
        m->g[r] = m->gx[r] = v_zero();
    });
    add_range(p, in, s, m, rows, a, b);
}

INLINE void add_group(const pass *p, reader *in, int rows) {
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

INLINE void open_group(const pass *p, reader *in, int rows, int64_t row) {
    EACH(rows, {
        in->x[r] = x_row(p, row + r);
        in->dy[r] = dy_row(p, row + r);
        in->stat[r] = stat_of(p, row + r);
        in->g[r] = in->gx[r] = (wide){0, 0};
    });
}

/* Makes the rows that have been added up the ones to write. */
INLINE void close_group(const pass *p, reader *in, writer *out, int rows, int64_t row) {
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
    open_group(p, in, rows, row);
    add_group(p, in, rows);
    close_group(p, in, out, rows, row);
    EACH(rows, {
        writer one = {.x = {out->x[r]}, .dy = {out->dy[r]}, .dx = {out->dx[r]}, .stat = {out->stat[r]}};
        one.peel = one.dx[0] ? elements_to_line(one.dx[0], p->n, p->type) : 0;
        write_group(p, &one, 1);
    });
}

/* Rows whose lines of output begin at different columns are added up together but written one by one. */
INLINE void backward_span(const pass *p, reader *in, int64_t row, int64_t last) {
    writer out;
    int together = p->t->ahead && p->c->dx && p->c->dx_row_stride * size_of(p->type) % 64 == 0 && last - row >= 2 * PAIR;
    if (!together) {
        for (; row + PAIR <= last; row += PAIR) rows_apart(p, in, &out, row, PAIR);
    } else {
        open_group(p, in, PAIR, row);
        add_group(p, in, PAIR);
        for (;;) {
            close_group(p, in, &out, PAIR, row);
            row += PAIR;
            if (row + PAIR > last) break;
            open_group(p, in, PAIR, row);
            turn(p, in, &out, row, last);
        }
        write_group(p, &out, PAIR);
    }
    for (; row < last; row++) rows_apart(p, in, &out, row, 1);
}

INLINE void *partial(const struct lnb_task *t, int64_t block, int which) {
    if (t->direct[which]) return t->direct[which];
    return (real *)t->partials + (2 * block + which) * t->pitch;
}

INLINE void blocks(const struct lnb_task *t, int64_t first, int64_t last, int type, int affine) {
    pass p = pass_of(t, type, affine);
    for (int64_t b = first; b < last; b++) {
        reader in;
        in.fresh = 1;
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
    moments2 m;
    EACH(rows, {
        in->x[r] = x_row(p, row + r);
        in->dy[r] = dy_row(p, row + r);
        in->stat[r] = *stat_at(t, row + r);
    });
    add_chunk(p, in, &m, rows, i * BACKWARD_CHUNK, least(p->n, (i + 1) * BACKWARD_CHUNK));
    double sums[2 * PAIR];
    chunk_values(&m, rows, sums);
    EACH(rows, {
        t->sums[(row + r) * t->chunks + i] = (struct lnb_sums){sums[2 * r], sums[2 * r + 1]};
    });
    in->fresh = 0;
}

INLINE void sums(const struct lnb_task *t, int64_t first, int64_t last, int type, int affine) {
    pass p = pass_of(t, type, affine);
    for (int64_t b = 0; b < t->blocks; b++) {
        int64_t end = least(p.c->rows, (b + 1) * t->block_rows);
        reader in;
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

#if LNB_REAL == 32
DEFINE(f32, LNB_F32, LNB_F32)
DEFINE(f16, LNB_F16, LNB_F16)
DEFINE(f16_f32, LNB_F16, LNB_F32)
DEFINE(bf16, LNB_BF16, LNB_BF16)
DEFINE(bf16_f32, LNB_BF16, LNB_F32)
#else
DEFINE(f64, LNB_F64, LNB_F64)
#endif
