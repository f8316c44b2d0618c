/*
 * Forward, rows. x is read from memory once: the second reading, for y, finds the rows in the cache. There are two ways through
 * the rows, which give the same bits. Tensors that fit in the cache are taken by pairs, so that gamma and beta are loaded once
 * for two rows and latencies are shared: a pair is added up, settled and written; so are half types. Else one loop adds
 * up a tile of the next group of rows while it writes a tile of the present group: it reads new lines of x and writes
 * lines of y, as a copy does, so the memory is read and written at the same time.
 */
#ifndef LNB_FORWARD_ROWS_H
#define LNB_FORWARD_ROWS_H

#include <string.h>

#include "statistics.h"

enum { LONG_ROW = 1 << 20, LONGEST_ROW = 4 << 20 }; /* in bytes; see is_long */

/*
 * Large tensors are gone through in groups of rows and tiles of columns, tile by tile for all rows of the group where gamma and
 * beta are used: their tile then stays in the first-level cache for the whole group. The sizes were measured (README.md).
 */
enum { TILE = 32 * LANES, GROUP = 8, GROUP_BYTES = 256 * 1024, SHORT_ROW = 8192 };

/* How far ahead memory is asked for: it takes longer to come than a pair of short rows takes. */
enum { LEAD_BYTES = 16 * 1024 };

/* Rows of a group, an even number: two groups are in the second-level cache. Short rows leave room for gamma as it is. */
INLINE int group_rows(int64_t row_bytes) {
    if (row_bytes < SHORT_ROW) return PAIR;
    int64_t rows = GROUP_BYTES / row_bytes / PAIR * PAIR;
    return rows > GROUP ? GROUP : rows < PAIR ? PAIR : (int)rows;
}

/* The columns [begin, end) of a tile. */
typedef struct {
    int64_t begin, end;
} span;

INLINE int64_t tiles_of(int64_t n) { return (n + TILE - 1) / TILE; }
INLINE span tile_of(int64_t tile, int64_t n) { return (span){tile * TILE, least(n, (tile + 1) * TILE)}; }

/* The same of a row whose first `peel` columns have been written, so that the others begin on whole lines. */
INLINE span shifted(span s, int64_t peel, int64_t n) {
    return (span){least(n, s.begin + peel), s.end == n ? n : least(n, s.end + peel)};
}

/*
 * A pair that is being written. Columns before `peel` are written first, so that stores fall on whole lines. `ahead`: the rows
 * that memory is asked for meanwhile, or NULL.
 */
typedef struct {
    const void *x[PAIR], *ahead[PAIR];
    void *y[PAIR];
    row_stat stat[PAIR];
    int64_t peel;
} writer;

typedef struct {
    const lnb_layer_norm *c;
    int64_t n;
    param gamma, beta;
    int type, affine, stream;
} pass;

INLINE pass pass_of(const struct lnb_task *t, int type, int affine) {
    const lnb_layer_norm *c = t->call;
    return (pass){c, c->cols, param_of(c->gamma, 1, affine), param_of(c->beta, 0, affine), type, affine, t->stream};
}

INLINE const void *x_row(const pass *p, int64_t row) { return at(p->c->x, row * p->c->x_row_stride, p->type); }

/* What a loop that writes does; known where it is compiled. */
typedef struct {
    int rows, stream, centred;
} way;

INLINE void put(const pass *p, const writer *w, const scale *s, way how, int64_t j) {
    vec gamma = load_param(p->gamma, j, p->affine), beta = load_param(p->beta, j, p->affine);
    vec y[PAIR] = {v_zero(), v_zero()};
    EACH(how.rows, y[r] = v_fma(normalized(s[r], v_load(w->x[r], j, p->type), how.centred), gamma, beta););
    EACH(how.rows, {
        if (how.stream) v_stream(w->y[r], j, y[r], p->type);
        else v_store(w->y[r], j, y[r], p->type);
    });
}

/* Two vectors of columns. What is written comes after all that is read: rows may lie a multiple of 4096 bytes apart. */
INLINE void put_two(const pass *p, const writer *w, const scale *s, way how, int64_t j) {
    if (!V_WRITES_TWO(p->type)) {
        put(p, w, s, how, j);
        put(p, w, s, how, j + LANES);
        return;
    }
    const int64_t k = j + LANES;
    vec gamma[2] = {load_param(p->gamma, j, p->affine), load_param(p->gamma, k, p->affine)};
    vec beta[2] = {load_param(p->beta, j, p->affine), load_param(p->beta, k, p->affine)};
    vec low[PAIR] = {v_zero(), v_zero()}, high[PAIR] = {v_zero(), v_zero()};
    EACH(how.rows, {
        low[r] = v_fma(normalized(s[r], v_load(w->x[r], j, p->type), how.centred), gamma[0], beta[0]);
        high[r] = v_fma(normalized(s[r], v_load(w->x[r], k, p->type), how.centred), gamma[1], beta[1]);
    });
    EACH(how.rows, {
        if (how.stream) v_stream_two(w->y[r], j, low[r], high[r], p->type);
        else v_store_two(w->y[r], j, low[r], high[r], p->type);
    });
}

INLINE void put_some(const pass *p, const writer *w, const scale *s, way how, int64_t j, int64_t n) {
    vec gamma = load_param_lanes(p->gamma, j, n, p->affine), beta = load_param_lanes(p->beta, j, n, p->affine);
    EACH(how.rows, {
        vec y = v_fma(normalized(s[r], v_load_some(w->x[r], j, n, p->type), how.centred), gamma, beta);
        v_store_some(w->y[r], j, n, y, p->type);
    });
}

/*
 * Where two rows are asked for meanwhile, one is in the loop that adds up and one in the loop that writes; both in the latter
 * where it takes most of the time.
 */
INLINE int asks_while_adding(int t) { return !V_DOTS(t); }

INLINE void put_columns(const pass *p, const writer *w, way how, int64_t j, int64_t end) {
    scale s[PAIR];
    EACH(how.rows, s[r] = scale_of(&w->stat[r]););
    if (w->ahead[0]) {
        for (; j + 2 * LANES <= end; j += 2 * LANES) {
            prefetch(at(w->ahead[0], j, p->type), 2 * LANES * size_of(p->type));
            if (!asks_while_adding(p->type)) prefetch(at(w->ahead[1], j, p->type), 2 * LANES * size_of(p->type));
            put_two(p, w, s, how, j);
        }
    }
    if (V_WRITES_TWO(p->type)) {
        for (; j + 2 * LANES <= end; j += 2 * LANES) put_two(p, w, s, how, j);
    }
    for (; j + LANES <= end; j += LANES) put(p, w, s, how, j);
    if (j < end) put_some(p, w, s, how, j, end - j);
}

/* Writes columns [j, end) of one or two rows, with vectors that begin at j. */
INLINE void put_range(const pass *p, const writer *w, int rows, int64_t j, int64_t end, int stream) {
    if (is_half(p->type) && w->stat[0].centred && w->stat[rows - 1].centred) put_columns(p, w, (way){rows, stream, 1}, j, end);
    else put_columns(p, w, (way){rows, stream, 0}, j, end);
}

/* Adds up columns of two rows and asks for the same columns of another, if any. */
INLINE void sum_and_ask(const void *const x[PAIR], const void *ahead, const progress at_row[PAIR], moments m[PAIR], span s,
                        int t, int raw) {
    const int64_t unit = unit_of(t, raw);
    const vec k[PAIR] = {v_set1(at_row[0].k), v_set1(at_row[1].k)};
    moments own[PAIR] = {m[0], m[1]};
    int64_t j = s.begin;
    for (; ahead && j + 2 * unit <= s.end; j += 2 * unit) {
        prefetch(at(ahead, j, t), 2 * unit * size_of(t));
        EACH(PAIR, {
            moments_add(&own[r], 0, x[r], k[r], j, unit, t, raw);
            moments_add(&own[r], 1, x[r], k[r], j + unit, unit, t, raw);
        });
    }
    EACH(PAIR, {
        moments_rest(&own[r], x[r], k[r], j, s.end, t, raw);
        m[r] = own[r];
    });
}

/* Adds up two rows, from pilots that are found together to sums that are formed together. */
INLINE void sum_pair(const pass *p, const void *const x[PAIR], const void *ahead, progress to[PAIR]) {
    const int t = p->type;
    vec v[2 * PAIR];
    double sums[2 * PAIR];
    EACH(PAIR, pilot_sums(x[r], p->n, t, v + 2 * r););
    v_sum4(v, sums);
    EACH(PAIR, to[r] = (progress){pilot_from(sums[2 * r], sums[2 * r + 1], p->n), {0, 0}, {0, 0}};);
    if (is_raw(to[0].k, t) != is_raw(to[1].k, t)) {
        EACH(PAIR, to[r] = sum_row(x[r], p->n, to[r].k, t););
        return;
    }
    for (int64_t a = 0; a < p->n; a += CHUNK) {
        const span c = {a, least(p->n, a + CHUNK)};
        moments m[PAIR] = {moments_zero(), moments_zero()};
        struct lnb_sums s[PAIR];
        if (is_raw(to[0].k, t)) sum_and_ask(x, ahead, to, m, c, t, 1);
        else sum_and_ask(x, ahead, to, m, c, t, 0);
        moments_values(m, s);
        EACH(PAIR, progress_add(&to[r], s[r], a == 0););
    }
}

/* Settles the statistics of a row that has been added up, and makes it one to write. */
INLINE void close_row(const pass *p, const progress *sums, const void *x, int64_t row, writer *out, int r) {
    mean_var v = settled_mean_var(sums, x, p->n, p->type);
    double rstd = rstd_of(v, p->c->epsilon);
    write_stats(p->c, row, v, rstd);
    out->x[r] = x;
    out->y[r] = p->c->y ? at_out(p->c->y, row * p->c->y_row_stride, p->type) : NULL;
    out->stat[r] = row_stat_of(v.k, v.delta, rstd, p->c, p->type);
    out->peel = elements_to_line(out->y[r], p->n, p->type);
}

INLINE void write_rows(const pass *p, const writer *w, int rows) {
    if (!p->c->y) return;
    put_range(p, w, rows, 0, w->peel, 0);
    put_range(p, w, rows, w->peel, p->n, p->stream);
}

/* `ahead`: what memory is asked for while the row is written, or NULL. */
INLINE void one_row(const pass *p, int64_t row, const void *ahead) {
    writer out = {.ahead = {ahead}};
    const void *x = x_row(p, row);
    progress sums = sum_row(x, p->n, pilot_of(x, p->n, p->type), p->type);
    close_row(p, &sums, x, row, &out, 0);
    write_rows(p, &out, 1);
}

INLINE void sum_and_close(const pass *p, writer *out, int64_t row, const void *ahead) {
    const void *x[PAIR] = {x_row(p, row), x_row(p, row + 1)};
    progress sums[PAIR];
    sum_pair(p, x, ahead, sums);
    EACH(PAIR, close_row(p, &sums[r], x[r], row + r, out, r););
}

/* A place in the order in which rows are added up: tile after tile, row after row. */
typedef struct {
    int64_t row, tile;
} cursor;

INLINE void advance(cursor *c, int64_t tiles) {
    if (++c->tile < tiles) return;
    c->tile = 0;
    c->row++;
}

/* The row that is being added up, and what memory is asked for meanwhile. */
typedef struct {
    const void *x, *ahead;
    progress sums;
    moments m;
} reader;

/* Adds up the columns `from` of `in` and writes the columns `to` of `out`; either may be none. */
INLINE void work(const pass *p, reader *in, span from, const writer *out, span to) {
    const int t = p->type;
    const vec k = v_set1(in->sums.k);
    const scale s[PAIR] = {scale_of(&out->stat[0])};
    const way how = {1, p->stream, 0};
    moments m = in->m;
    int64_t i = 0, both = least(from.end - from.begin, to.end - to.begin);
    for (; i + 2 * LANES <= both; i += 2 * LANES) {
        int64_t j = from.begin + i;
        prefetch(at(in->ahead, i, t), 2 * LANES * size_of(t));
        moments_add(&m, 0, in->x, k, j, LANES, t, 0);
        moments_add(&m, 1, in->x, k, j + LANES, LANES, t, 0);
        put(p, out, s, how, to.begin + i);
        put(p, out, s, how, to.begin + i + LANES);
    }
    moments_rest(&m, in->x, k, from.begin + i, from.end, t, 0);
    in->m = m;
    put_range(p, out, 1, to.begin + i, to.end, p->stream);
}

INLINE void begin_row(const pass *p, reader *in, int64_t row) {
    in->x = x_row(p, row);
    in->sums = (progress){pilot_of(in->x, p->n, p->type), {0, 0}, {0, 0}};
    in->m = moments_zero();
}

/* After a tile: closes the chunk that it ends. */
INLINE void end_tile(reader *in, span s, int64_t n) {
    if (s.end % CHUNK && s.end != n) return;
    progress_add(&in->sums, moments_value(&in->m), s.end <= CHUNK);
    in->m = moments_zero();
}

/* Adds up `ins` rows from `row` on, which become `next`, and writes the `outs` rows of `out`. */
INLINE void step(const pass *p, int64_t row, int ins, writer *next, const writer *out, int outs, cursor *ahead) {
    const int64_t tiles = tiles_of(p->n), sums = ins * tiles, puts = outs * tiles;
    const writer *to = out;
    cursor at_sum = {row, 0}, at_put = {0, 0}; /* a group is written tile by tile: there `row` counts tiles */
    reader in = {.x = p->c->x};
    in.m = moments_zero();
    for (int64_t u = 0; u < sums || u < puts; u++) {
        span from = {0, 0}, target = {0, 0};
        if (u < puts) {
            to = &out[at_put.tile];
            if (!at_put.row) put_range(p, to, 1, 0, to->peel, 0);
            target = shifted(tile_of(at_put.row, p->n), to->peel, p->n);
            advance(&at_put, outs);
        }
        if (u < sums) {
            if (!at_sum.tile) begin_row(p, &in, at_sum.row);
            from = tile_of(at_sum.tile, p->n);
            in.ahead = at(x_row(p, ahead->row), ahead->tile * TILE, p->type);
            advance(ahead, tiles);
        }
        work(p, &in, from, to, target);
        if (u >= sums) continue;
        end_tile(&in, from, p->n);
        if (from.end == p->n) close_row(p, &in.sums, in.x, at_sum.row, &next[at_sum.row - row], 0);
        advance(&at_sum, tiles);
    }
}

INLINE int64_t fused(const pass *p, int64_t row, int64_t last) {
    writer groups[2][GROUP];
    const int64_t bytes = p->n * size_of(p->type), tiles = tiles_of(p->n);
    const int64_t lead = LEAD_BYTES / size_of(p->type) / least(p->n, TILE);
    const int most = group_rows(bytes);
    cursor ahead = {row + lead / tiles, lead % tiles};
    memset(groups, 0, sizeof groups);
    for (int outs = 0, which = 0; row < last || outs; which = !which) {
        int ins = (int)least(most, last - row);
        step(p, row, ins, groups[which], groups[!which], outs, &ahead);
        row += ins;
        outs = ins;
    }
    return row;
}

/* Rows by pairs; when `ahead`, another pair is asked for. Rows whose lines begin at different columns cannot share a loop. */
INLINE int64_t by_pairs(const pass *p, int64_t row, int64_t last, int ahead) {
    const int64_t lead = pairs_of(LEAD_BYTES, p->n * size_of(p->type));
    if (!p->c->y || p->c->y_row_stride * size_of(p->type) % 64) return row;
    for (; row + PAIR <= last; row += PAIR) {
        writer out;
        EACH(PAIR, out.ahead[r] = ahead ? x_row(p, least(row + lead + r, last - 1)) : NULL;);
        sum_and_close(p, &out, row, asks_while_adding(p->type) ? out.ahead[1] : NULL);
        write_rows(p, &out, PAIR);
    }
    return row;
}

/*
 * Rows that only the cache of all cores holds until they are read again, and that it holds: a row is written while
 * the next is fetched into that cache, where its statistics take little time.
 */
INLINE int is_long(const pass *p) {
    const int64_t bytes = p->n * size_of(p->type);
    return bytes >= LONG_ROW && bytes <= LONGEST_ROW;
}

/* Half types are bound by arithmetic: they gain more from loading and widening gamma and beta once for two rows. */
INLINE void forward_span(const pass *p, int64_t row, int64_t last, int ahead) {
    const int fuse = LANES > 1 && p->c->y && ahead && size_of(p->type) > 2;
    for (; fuse && is_long(p) && row < last; row++) one_row(p, row, x_row(p, least(row + 1, p->c->rows - 1)));
    if (fuse) row = fused(p, row, last);
    row = by_pairs(p, row, last, ahead);
    for (; row < last; row++) one_row(p, row, NULL);
}

#endif
