/* How the tests run a problem: in guarded, padded, possibly shared arrays; the results come back as dense bytes. */
#ifndef LNB_TESTS_RUNS_H
#define LNB_TESTS_RUNS_H

#include "support.h"

static int failures;
static long checks;
static const char *target;

/* How to run a problem. */
typedef struct {
    int threads, at_end, pad, in_place, stat_kind, stat_type, recompute, short_struct;
    int no_y, no_mean, no_stat, no_dx, no_dgamma, no_dbeta;
    int64_t first, rows; /* of the problem */
} manner;

/* Results as dense raw bytes. */
typedef struct {
    char *y, *mean, *stat, *dx, *dgamma, *dbeta;
} results;

static void fail(const problem *p, const manner *m, const char *what) {
    if (++failures > 30) return;
    fprintf(stderr, "FAILED %s %s/%s rows %lld cols %lld eps %g gamma %d beta %d threads %d end %d pad %d in place %d kind %d recompute %d: %s\n",
            target, TYPE_NAMES[p->type], TYPE_NAMES[p->affine], (long long)p->rows, (long long)p->cols, p->epsilon,
            p->gamma != NULL, p->beta != NULL, m->threads, m->at_end, m->pad, m->in_place, m->stat_kind, m->recompute, what);
}

/* A guarded array of rows at a stride, filled from `values` when given; read-only afterwards. */
static guarded matrix(const double *values, int64_t rows, int64_t cols, int64_t stride, int type, int at_end) {
    int64_t elements = rows > 0 ? (rows - 1) * stride + cols : 0;
    guarded g = guard((size_t)(elements * size_of(type)), at_end, (size_t)size_of(type));
    for (int64_t r = 0; values && r < rows; r++) {
        for (int64_t i = 0; i < cols; i++) set(g.data, r * stride + i, values[r * cols + i], type);
    }
    return g;
}

static void freeze(guarded *g) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    mprotect(g->map + page, g->length - 2 * page, PROT_READ);
}

/* Copies the rows out and checks that what lies between them was not touched. */
static void collect(const problem *p, const manner *m, char *to, const guarded *g, int64_t rows, int64_t cols, int64_t stride,
                    int type) {
    int64_t size = size_of(type);
    for (int64_t r = 0; r < rows; r++) {
        memcpy(to + r * cols * size, g->data + r * stride * size, (size_t)(cols * size));
        for (int64_t b = cols * size; r + 1 < rows && b < stride * size; b++) {
            if ((unsigned char)g->data[r * stride * size + b] != 0xff && !m->in_place) {
                fail(p, m, "padding was written");
                return;
            }
        }
    }
}

static void *workspace_for(lnb_layer_norm *c, int backward, guarded *g) {
    int64_t bytes = lnb_layer_norm_workspace(c, backward);
    if (bytes <= 0) return NULL;
    *g = guard((size_t)bytes, 1, 64);
    return g->data;
}

static lnb_layer_norm call_for(const problem *p, const manner *m) {
    lnb_layer_norm c = {.size = sizeof c + 64, .dtype = p->type, .affine_dtype = p->affine, .stat_dtype = m->stat_type};
    c.stat_kind = m->stat_kind, c.threads = m->threads, c.epsilon = p->epsilon, c.rows = m->rows, c.cols = p->cols;
    return c;
}

static void run_forward(const problem *p, const manner *m, results *out) {
    const int64_t n = p->cols, sx = n + m->pad, sy = m->in_place ? sx : n + 2 * m->pad;
    guarded x = matrix(p->x + m->first * n, m->rows, n, sx, p->type, m->at_end), y, work = {0};
    guarded gamma = matrix(p->gamma, p->gamma ? 1 : 0, n, n, p->affine, m->at_end);
    guarded beta = matrix(p->beta, p->beta ? 1 : 0, n, n, p->affine, m->at_end);
    guarded mean = matrix(NULL, 1, m->rows, 0, m->stat_type, m->at_end), stat = matrix(NULL, 1, m->rows, 0, m->stat_type, m->at_end);
    y = m->in_place ? x : matrix(NULL, m->rows, n, sy, p->type, m->at_end);
    lnb_layer_norm c = call_for(p, m);
    c.x = x.data, c.y = m->no_y ? NULL : y.data, c.x_row_stride = sx, c.y_row_stride = sy;
    c.gamma = p->gamma ? gamma.data : NULL, c.beta = p->beta ? beta.data : NULL;
    c.mean = m->no_mean ? NULL : mean.data, c.stat = m->no_stat ? NULL : stat.data;
    if (!m->in_place) freeze(&x);
    freeze(&gamma), freeze(&beta);
    c.workspace = workspace_for(&c, 0, &work);
    if (lnb_layer_norm_forward(&c) != LNB_OK) fail(p, m, lnb_reason());
    if (!m->no_y) collect(p, m, out->y, &y, m->rows, n, sy, p->type);
    if (!m->no_mean) memcpy(out->mean, mean.data, (size_t)(m->rows * size_of(m->stat_type)));
    if (!m->no_stat) memcpy(out->stat, stat.data, (size_t)(m->rows * size_of(m->stat_type)));
    if (!m->in_place) unguard(&y);
    if (work.map) unguard(&work);
    unguard(&x), unguard(&gamma), unguard(&beta), unguard(&mean), unguard(&stat);
}

static void run_backward(const problem *p, const manner *m, const results *stats, results *out) {
    const int64_t n = p->cols, sx = n + m->pad, sdy = n + 3 * m->pad, sdx = m->in_place ? sdy : n + 2 * m->pad;
    guarded x = matrix(p->x + m->first * n, m->rows, n, sx, p->type, m->at_end), dx, work = {0};
    guarded dy = matrix(p->dy + m->first * n, m->rows, n, sdy, p->type, m->at_end);
    guarded gamma = matrix(p->gamma, p->gamma ? 1 : 0, n, n, p->affine, m->at_end);
    guarded mean = matrix(NULL, 1, m->rows, 0, m->stat_type, m->at_end), stat = matrix(NULL, 1, m->rows, 0, m->stat_type, m->at_end);
    guarded dgamma = matrix(NULL, 1, n, 0, p->affine, m->at_end), dbeta = matrix(NULL, 1, n, 0, p->affine, m->at_end);
    int64_t size = size_of(m->stat_type);
    memcpy(mean.data, stats->mean + m->first * size, (size_t)(m->rows * size));
    memcpy(stat.data, stats->stat + m->first * size, (size_t)(m->rows * size));
    dx = m->in_place ? dy : matrix(NULL, m->rows, n, sdx, p->type, m->at_end);
    lnb_layer_norm c = call_for(p, m);
    c.x = x.data, c.dy = dy.data, c.dx = m->no_dx ? NULL : dx.data;
    c.x_row_stride = sx, c.dy_row_stride = sdy, c.dx_row_stride = sdx;
    c.gamma = p->gamma ? gamma.data : NULL;
    c.mean = m->recompute ? NULL : mean.data, c.stat = m->recompute ? NULL : stat.data;
    c.dgamma = m->no_dgamma ? NULL : dgamma.data, c.dbeta = m->no_dbeta ? NULL : dbeta.data;
    freeze(&x), freeze(&gamma), freeze(&mean), freeze(&stat);
    if (!m->in_place) freeze(&dy);
    c.workspace = workspace_for(&c, 1, &work);
    if (lnb_layer_norm_backward(&c) != LNB_OK) fail(p, m, lnb_reason());
    if (!m->no_dx) collect(p, m, out->dx, &dx, m->rows, n, sdx, p->type);
    if (!m->no_dgamma) memcpy(out->dgamma, dgamma.data, (size_t)(n * size_of(p->affine)));
    if (!m->no_dbeta) memcpy(out->dbeta, dbeta.data, (size_t)(n * size_of(p->affine)));
    if (!m->in_place) unguard(&dx);
    if (work.map) unguard(&work);
    unguard(&x), unguard(&dy), unguard(&gamma), unguard(&mean), unguard(&stat), unguard(&dgamma), unguard(&dbeta);
}

#endif
