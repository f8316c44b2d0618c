/* Layer normalization behind the interface: plans who computes what, runs the plan. */
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "internal.h"
#include "pool.h"

/* Elements that are worth a thread of their own: about the work of one wake-up. */
#ifndef LNB_ELEMENTS_PER_THREAD
#define LNB_ELEMENTS_PER_THREAD 8192
#endif

/*
 * Bytes read and written by a call from which on the output goes past the cache. Below, the caller will probably find
 * the output still in the cache; above, an ordinary store would first read the line that it overwrites. Measured: see
 * README.md, "Non-temporal stores".
 */
#ifndef LNB_STREAM_BYTES
#define LNB_STREAM_BYTES (INT64_C(8) << 20)
#endif

enum {
    MAX_THREADS = 256,
    PARTS_PER_THREAD = 4, /* of large tensors: what another thread can take over from one that is held up */
    LINE = 64,
    SKEW = 17 * LINE, /* keeps arrays of 4096 bytes from falling on the same lines of a cache */
    STREAM_COLS = 128, /* shorter rows have too many lines that belong to two rows */
};

/* Bytes from which on the next rows are asked for ahead: they will not be in the second-level cache. */
#ifndef LNB_AHEAD_BYTES
#define LNB_AHEAD_BYTES (INT64_C(4) << 20)
#endif

/* How one call is carried out. */
struct plan {
    struct lnb_task task;
    const struct lnb_forward *forward;
    const struct lnb_backward *backward;
    int threads;
    bool by_columns;
    int64_t partial_bytes, row_bytes, sum_bytes; /* of workspace, in this order */
};

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* The call with every field that the caller's struct is too short for set to zero; NULL: too short. */
static const lnb_layer_norm *whole(const lnb_layer_norm *call, lnb_layer_norm *copy) {
    if (!call) {
        lnb_refuse(LNB_INVALID, "the call is NULL");
        return NULL;
    }
    if (__builtin_expect(call->size >= sizeof *call, 1)) return call;
    if (call->size < offsetof(lnb_layer_norm, x_row_stride)) {
        lnb_refuse(LNB_INVALID, "size is %u: too short for a lnb_layer_norm", (unsigned)call->size);
        return NULL;
    }
    memset(copy, 0, sizeof *copy);
    memcpy(copy, call, call->size);
    return copy;
}

static int threads_for(const lnb_layer_norm *c, int64_t elements) {
    int64_t threads = c->threads ? c->threads : lnb_pool_processors();
    return (int)least(least(threads, MAX_THREADS), elements / LNB_ELEMENTS_PER_THREAD + 1);
}

/*
 * Rows whose parameter gradients are added up in one place: about sqrt(rows), so that no chain of additions is long, but
 * enough that writing and reading the partial sums costs little beside the rows. It must not depend on threads.
 */
static int64_t rows_per_block(int64_t rows) { return rows <= 32 ? 16 : rows <= 512 ? 32 : rows <= 4096 ? 64 : 128; }

static int choose_kernels(const lnb_layer_norm *c, struct plan *p) {
    const struct lnb_target *t = lnb_active();
    if (!t) return LNB_INVALID;
    bool affine = c->gamma || c->beta || c->dgamma || c->dbeta;
    int mixed = affine && c->affine_dtype != c->dtype;
    p->forward = t->forward[c->dtype][mixed];
    p->backward = t->backward[c->dtype][mixed];
    return LNB_OK;
}

/* A short side of rows that cannot occupy the threads, and rows long enough to be shared. */
static bool should_split_columns(const struct plan *p, int64_t units, int64_t cols, int64_t chunk) {
    return p->threads > 1 && units < 2 * (int64_t)p->threads && cols >= 2 * chunk;
}

static void plan_forward(const lnb_layer_norm *c, struct plan *p) {
    int64_t elements = c->rows * c->cols, bytes = 2 * elements * lnb_size_of(c->dtype);
    p->threads = threads_for(c, elements);
    p->by_columns = should_split_columns(p, c->rows, c->cols, p->forward->chunk);
    p->task.chunks = (c->cols + p->forward->chunk - 1) / p->forward->chunk;
    p->task.stream = bytes >= LNB_STREAM_BYTES && c->cols >= STREAM_COLS && c->y != c->x;
    p->task.ahead = bytes >= LNB_AHEAD_BYTES;
    if (!p->by_columns) return;
    p->row_bytes = c->rows * LNB_ROW_DOUBLES * (int64_t)sizeof(double);
    p->sum_bytes = c->rows * p->task.chunks * (int64_t)sizeof(struct lnb_sums);
}

static void plan_backward(const lnb_layer_norm *c, struct plan *p) {
    int64_t elements = c->rows * c->cols, real = c->dtype == LNB_F64 ? 8 : 4;
    int real_type = c->dtype == LNB_F64 ? LNB_F64 : LNB_F32;
    struct lnb_task *t = &p->task;
    p->threads = threads_for(c, elements);
    t->stream = 3 * elements * lnb_size_of(c->dtype) >= LNB_STREAM_BYTES && c->cols >= STREAM_COLS;
    t->stream = t->stream && c->dx != c->x && c->dx != c->dy;
    t->ahead = 3 * elements * lnb_size_of(c->dtype) >= LNB_AHEAD_BYTES;
    t->recompute = c->mean && c->stat ? NULL : p->forward;
    t->want_params = c->dgamma || c->dbeta;
    t->block_rows = rows_per_block(c->rows);
    t->blocks = (c->rows + t->block_rows - 1) / t->block_rows;
    t->pitch = round_up(c->cols, LINE / real) + SKEW / real;
    p->by_columns = should_split_columns(p, t->blocks, c->cols, p->backward->chunk);
    int64_t chunk = p->backward->chunk < p->forward->chunk ? p->backward->chunk : p->forward->chunk;
    t->chunks = (c->cols + chunk - 1) / chunk;
    if (t->blocks == 1 && c->affine_dtype == real_type) {
        t->direct[0] = c->dgamma;
        t->direct[1] = c->dbeta;
    }
    if (t->want_params && !(t->direct[0] && t->direct[1])) p->partial_bytes = t->blocks * 2 * t->pitch * real;
    if (!p->by_columns) return;
    p->row_bytes = c->rows * LNB_ROW_DOUBLES * (int64_t)sizeof(double);
    p->sum_bytes = c->rows * t->chunks * (int64_t)sizeof(struct lnb_sums);
}

static int64_t workspace_bytes(const struct plan *p) {
    return round_up(p->partial_bytes, LINE) + round_up(p->row_bytes, LINE) + round_up(p->sum_bytes, LINE);
}

static int prepare(const lnb_layer_norm *c, bool backward, struct plan *p) {
    int status = lnb_check(c, backward);
    if (status) return status;
    memset(p, 0, sizeof *p);
    if ((status = choose_kernels(c, p))) return status;
    if (backward) plan_backward(c, p);
    else plan_forward(c, p);
    return LNB_OK;
}

static int take_workspace(const lnb_layer_norm *c, struct plan *p) {
    int64_t bytes = workspace_bytes(p);
    if (bytes && !c->workspace) return lnb_refuse(LNB_INVALID, "workspace is NULL and %lld bytes are needed", (long long)bytes);
    if (bytes && lnb_misaligned(c->workspace, LINE)) return lnb_refuse(LNB_INVALID, "workspace is not aligned to 64 bytes");
    char *w = c->workspace;
    p->task.call = c;
    if (!bytes) return LNB_OK;
    p->task.partials = w;
    p->task.rows = (double *)(void *)(w + round_up(p->partial_bytes, LINE));
    p->task.sums = (struct lnb_sums *)(void *)(w + round_up(p->partial_bytes, LINE) + round_up(p->row_bytes, LINE));
    return LNB_OK;
}

/* A phase: a kernel function over [0, total) in steps that a part may begin at. */
struct phase {
    const struct lnb_task *task;
    void (*fn)(const struct lnb_task *, int64_t, int64_t);
    int64_t total, step;
};

static void run_part(const void *context, int part, int parts) {
    const struct phase *ph = context;
    int64_t steps = (ph->total + ph->step - 1) / ph->step;
    int64_t first = steps * part / parts * ph->step, last = steps * (part + 1) / parts * ph->step;
    if (first < last) ph->fn(ph->task, first, least(last, ph->total));
}

static void run_phase(const struct plan *p, void (*fn)(const struct lnb_task *, int64_t, int64_t), int64_t total,
                      int64_t step) {
    struct phase ph = {&p->task, fn, total, step};
    int64_t steps = (total + step - 1) / step;
    int threads = (int)least(p->threads, steps);
    if (threads <= 1) fn(&p->task, 0, total);
    else lnb_pool_run(run_part, &ph, (int)least(threads * (p->task.ahead ? PARTS_PER_THREAD : 1), steps), threads);
}

/* Rows of no elements have mean 0 and variance 0. */
static void write_empty_stats(const lnb_layer_norm *c) {
    double stat = c->stat_kind == LNB_VAR ? 0 : c->stat_kind == LNB_STD ? sqrt(c->epsilon) : 1 / sqrt(c->epsilon);
    for (int64_t row = 0; row < c->rows; row++) {
        if (c->mean && c->stat_dtype == LNB_F64) ((double *)c->mean)[row] = 0;
        else if (c->mean) ((float *)c->mean)[row] = 0;
        if (c->stat && c->stat_dtype == LNB_F64) ((double *)c->stat)[row] = stat;
        else if (c->stat) ((float *)c->stat)[row] = (float)stat;
    }
}

int lnb_layer_norm_forward(const lnb_layer_norm *call) {
    lnb_layer_norm copy;
    struct plan p;
    const lnb_layer_norm *c = whole(call, &copy);
    int status = c ? prepare(c, false, &p) : LNB_INVALID;
    if (status || (status = take_workspace(c, &p))) return status;
    if (c->cols == 0) write_empty_stats(c);
    if (c->rows == 0 || c->cols == 0) return LNB_OK;
    if (p.by_columns) {
        run_phase(&p, p.forward->sums, p.task.chunks, 1);
        p.forward->finish(&p.task);
        run_phase(&p, p.forward->columns, p.task.chunks, 1);
    } else {
        run_phase(&p, p.forward->rows, c->rows, 2);
    }
    return LNB_OK;
}

/* The statistics of all rows, with the forward pass's chunks. */
static void recompute_by_columns(struct plan *p) {
    int64_t chunks = p->task.chunks;
    p->task.chunks = (p->task.call->cols + p->forward->chunk - 1) / p->forward->chunk;
    run_phase(p, p->forward->sums, p->task.chunks, 1);
    p->forward->finish(&p->task);
    p->task.chunks = chunks;
}

static void backward_by_columns(struct plan *p) {
    if (p->task.recompute) recompute_by_columns(p);
    else p->backward->start(&p->task);
    p->task.chunks = (p->task.call->cols + p->backward->chunk - 1) / p->backward->chunk;
    if (p->task.call->dx) {
        run_phase(p, p->backward->sums, p->task.chunks, 1);
        p->backward->finish(&p->task);
    }
    run_phase(p, p->backward->columns, p->task.chunks, 1);
}

int lnb_layer_norm_backward(const lnb_layer_norm *call) {
    lnb_layer_norm copy;
    struct plan p;
    const lnb_layer_norm *c = whole(call, &copy);
    int status = c ? prepare(c, true, &p) : LNB_INVALID;
    if (status || (status = take_workspace(c, &p))) return status;
    if (c->rows == 0) {
        if (c->dgamma) memset(c->dgamma, 0, (size_t)(c->cols * lnb_size_of(c->affine_dtype)));
        if (c->dbeta) memset(c->dbeta, 0, (size_t)(c->cols * lnb_size_of(c->affine_dtype)));
    }
    if (c->rows == 0 || c->cols == 0 || !(c->dx || c->dgamma || c->dbeta)) return LNB_OK;
    if (p.by_columns) backward_by_columns(&p);
    else run_phase(&p, p.backward->blocks, p.task.blocks, 1);
    bool direct = (p.task.direct[0] || !c->dgamma) && (p.task.direct[1] || !c->dbeta);
    if (p.task.want_params && !direct) {
        int64_t chunks = (c->cols + p.backward->chunk - 1) / p.backward->chunk;
        if (p.task.blocks * c->cols < 4 * LNB_ELEMENTS_PER_THREAD) p.threads = 1;
        run_phase(&p, p.backward->reduce, chunks, 1);
    }
    return LNB_OK;
}

int64_t lnb_layer_norm_workspace(const lnb_layer_norm *call, int backward) {
    lnb_layer_norm copy;
    struct plan p;
    const lnb_layer_norm *c = whole(call, &copy);
    if (!c || prepare(c, backward != 0, &p)) return -1;
    return workspace_bytes(&p);
}
