/*
 * A small layer normalization behind lnbench's C interface, float32 only, and the bugs that only C can have.
 *
 * Without a macro it is correct: two passes, eight lanes and a tail, rows split over threads, partial column sums in
 * the workspace. Each MUTANT_... macro plants one bug; `native.py` lists and compiles them. The declarations repeat
 * lnbench.h, so that this file compiles wherever there is a C compiler.
 */
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint32_t size;
    int32_t dtype, affine_dtype, stat_dtype, stat_kind, threads;
    double epsilon;
    int64_t rows, cols, x_row_stride, y_row_stride, dy_row_stride, dx_row_stride;
    const void *x, *gamma, *beta, *dy;
    void *y, *mean, *stat, *dx, *dgamma, *dbeta, *workspace;
} lnb_layer_norm;

#ifdef MUTANT_NO_BARRIER
#define SHARES static part /* outlives the call, as the threads do */
#else
#define SHARES part
#endif

enum { OK = 0, UNSUPPORTED = 1, NO_THREADS = 4, LANES = 8, MAX_THREADS = 64 };

uint32_t lnb_abi_version(void) { return 1; }
const char *lnb_describe(void) { return "name=selftest-c;version=1;statistics=rstd"; }
const char *lnb_reason(void) { return "this kernel computes in float32 only"; }

/* One thread's share of the rows, and where its column sums go. */
typedef struct {
    const lnb_layer_norm *call;
    int64_t first, last;
    float *dgamma, *dbeta;
} part;

static int usable(const lnb_layer_norm *c) {
    return c->dtype == 0 && c->affine_dtype == 0 && c->stat_dtype == 0 && c->stat_kind == 0;
}

static int thread_count(const lnb_layer_norm *c) {
    int64_t n = c->threads < 1 ? 1 : c->threads > MAX_THREADS ? MAX_THREADS : c->threads;
    n = n > c->rows ? c->rows : n;
    return n < 1 ? 1 : (int)n;
}

static int64_t offset(int64_t row, int64_t stride) {
#ifdef MUTANT_NARROW_OFFSETS
    return (int64_t)(int32_t)((uint32_t)row * (uint32_t)stride * 4u) / 4;
#else
    return row * stride;
#endif
}

/* sum of (x - shift)^power over a row, power 1 or 2 */
static float row_sum(const float *x, int64_t n, float shift, int power) {
    float lane[LANES] = {0}, sum = 0;
    int64_t i = 0;
#ifdef MUTANT_READS_PAST_ROW
    for (; i < n; i += LANES) /* whole vectors only; lanes past the end are masked after the load */
        for (int k = 0; k < LANES; k++) {
            float value = ((const volatile float *)x)[i + k], d = value - shift;
            lane[k] += i + k < n ? (power == 1 ? d : d * d) : 0;
        }
#else
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++) {
            float d = x[i + k] - shift;
            lane[k] += power == 1 ? d : d * d;
        }
#endif
    for (int k = 0; k < LANES; k++) sum += lane[k];
#ifdef MUTANT_MISSING_TAIL
    if (i > 0) return sum;
#endif
    for (; i < n; i++) sum += power == 1 ? x[i] - shift : (x[i] - shift) * (x[i] - shift);
    return sum;
}

#ifdef MUTANT_SHARED_SCRATCH
static float scratch[1 << 16]; /* shared by all threads */
#endif

static void forward_row(const lnb_layer_norm *c, int64_t row) {
    int64_t n = c->cols;
    const float *gamma = c->gamma, *beta = c->beta, *x = (const float *)c->x + offset(row, c->x_row_stride);
#ifdef MUTANT_Y_STRIDE_OF_X
    float *y = (float *)c->y + offset(row, c->x_row_stride);
#else
    float *y = (float *)c->y + offset(row, c->y_row_stride);
#endif
    float mean = row_sum(x, n, 0, 1) / (float)n;
    float variance = row_sum(x, n, mean, 2) / (float)n;
    float rstd = 1.0f / sqrtf(variance + (float)c->epsilon);
#ifdef MUTANT_SHARED_SCRATCH
    if (n <= (1 << 16)) {
        for (int64_t i = 0; i < n; i++) scratch[i] = (x[i] - mean) * rstd;
        sched_yield();
        for (int64_t i = 0; i < n; i++) y[i] = scratch[i] * (gamma ? gamma[i] : 1) + (beta ? beta[i] : 0);
    } else
#endif
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * rstd * (gamma ? gamma[i] : 1) + (beta ? beta[i] : 0);
#ifdef MUTANT_WRITES_ROUNDED_UP
    for (int64_t i = n; i % 4; i++) y[i] = 0;
#endif
#ifdef MUTANT_GAMMA_ROUNDED_UP
    if (gamma) {
        volatile float last = 0;
        for (int64_t i = n; i % LANES; i++) last += gamma[i];
    }
#endif
    if (c->mean) ((float *)c->mean)[row] = mean;
    if (c->stat) ((float *)c->stat)[row] = rstd;
}

static void *forward_part(void *argument) {
    part *p = argument;
    for (int64_t row = p->first; row < p->last; row++) forward_row(p->call, row);
    return NULL;
}

static void backward_row(const part *p, int64_t row) {
    const lnb_layer_norm *c = p->call;
    int64_t n = c->cols;
    const float *gamma = c->gamma, *x = (const float *)c->x + offset(row, c->x_row_stride);
#ifdef MUTANT_DY_STRIDE_OF_X
    const float *dy = (const float *)c->dy + offset(row, c->x_row_stride);
#else
    const float *dy = (const float *)c->dy + offset(row, c->dy_row_stride);
#endif
    float *dx = (float *)c->dx + offset(row, c->dx_row_stride);
    float mean = ((const float *)c->mean)[row], rstd = ((const float *)c->stat)[row], a = 0, b = 0;
    for (int64_t i = 0; i < n; i++) {
        float g = gamma ? dy[i] * gamma[i] : dy[i], xhat = (x[i] - mean) * rstd;
        a += g;
        b += g * xhat;
    }
    a /= (float)n;
    b /= (float)n;
    for (int64_t i = 0; i < n; i++) {
        float d = dy[i], g = gamma ? d * gamma[i] : d, xhat = (x[i] - mean) * rstd;
#ifdef MUTANT_RACE_ON_DGAMMA
        float seen = ((volatile float *)p->dgamma)[i]; /* another thread may add in between */
        if (i % 16 == 0) sched_yield();
        ((volatile float *)p->dgamma)[i] = seen + d * xhat;
#else
        p->dgamma[i] += d * xhat;
#endif
        p->dbeta[i] += d;
        dx[i] = rstd * (g - a - xhat * b);
    }
}

static void *backward_part(void *argument) {
    const part *p = argument;
    for (int64_t row = p->first; row < p->last; row++) backward_row(p, row);
    return NULL;
}

/* Splits the rows and runs `work` on every share; waits for all. */
static int spread(const lnb_layer_norm *c, part *parts, int threads, void *(*work)(void *)) {
    pthread_t handle[MAX_THREADS];
    int started = 0;
    for (int t = 0; t < threads; t++) {
        parts[t].call = c;
#ifdef MUTANT_PARTITION_FLOOR
        parts[t].first = c->rows / threads * t;
        parts[t].last = c->rows / threads * (t + 1);
#elif defined(MUTANT_PARTITION_OVERLAPS)
        parts[t].first = c->rows * t / threads;
        parts[t].last = c->rows * (t + 1) / threads + (t + 1 < threads);
#else
        parts[t].first = c->rows * t / threads;
        parts[t].last = c->rows * (t + 1) / threads;
#endif
    }
    for (int t = 1; t < threads; t++, started++)
        if (pthread_create(&handle[t], NULL, work, &parts[t])) break;
    work(&parts[0]);
#ifdef MUTANT_NO_BARRIER
    for (int t = 1; t <= started; t++) pthread_detach(handle[t]); /* results are used before all are there */
#else
    for (int t = 1; t <= started; t++) pthread_join(handle[t], NULL);
#endif
    return started == threads - 1 ? OK : NO_THREADS;
}

int lnb_layer_norm_forward(const lnb_layer_norm *c) {
    SHARES parts[MAX_THREADS] = {{0}};
    if (!usable(c)) return UNSUPPORTED;
    if (c->rows == 0 || c->cols == 0) return OK;
#ifdef MUTANT_GRID_LIMIT
    if (c->rows > 65535) return OK;
#endif
    int status = spread(c, parts, thread_count(c), forward_part);
#ifdef MUTANT_WRITES_BEFORE
    ((volatile float *)c->y)[-1] = 0;
#endif
#ifdef MUTANT_WRITES_AFTER_STATISTICS
    if (c->stat) ((volatile float *)c->stat)[c->rows] = 0;
#endif
#ifdef MUTANT_X_IS_SCRATCH
    ((volatile float *)c->x)[0] = ((const volatile float *)c->x)[0] - 1;
#endif
    return status;
}

int64_t lnb_layer_norm_workspace(const lnb_layer_norm *c, int backward) {
    if (!usable(c)) return -1;
    int threads = thread_count(c);
#ifdef MUTANT_SCRATCH_TOO_SMALL
    threads -= threads > 2;
#endif
    return backward ? (int64_t)sizeof(float) * 2 * c->cols * threads : 0;
}

int lnb_layer_norm_backward(const lnb_layer_norm *c) {
    SHARES parts[MAX_THREADS] = {{0}};
    float *dgamma = c->dgamma, *dbeta = c->dbeta, *work = c->workspace;
    int threads = thread_count(c), status = OK;
    if (!usable(c) || !c->mean || !c->stat) return UNSUPPORTED;
    if (c->cols == 0) return OK;
#ifdef MUTANT_EMPTY_UNWRITTEN
    if (c->rows == 0) return OK;
#endif
#ifndef MUTANT_WORKSPACE_NOT_CLEARED
    memset(work, 0, sizeof(float) * 2 * (size_t)c->cols * (size_t)threads);
#endif
    for (int t = 0; t < threads; t++) {
#ifdef MUTANT_RACE_ON_DGAMMA
        parts[t].dgamma = work;
#else
        parts[t].dgamma = work + c->cols * 2 * t;
#endif
        parts[t].dbeta = work + c->cols * (2 * t + 1);
    }
    if (c->rows) status = spread(c, parts, threads, backward_part);
    for (int64_t i = 0; i < c->cols; i++) {
        float sum_g = 0, sum_b = 0;
        for (int t = 0; t < threads; t++) {
#ifdef MUTANT_RACE_ON_DGAMMA
            if (t == 0)
#endif
            sum_g += parts[t].dgamma[i];
            sum_b += parts[t].dbeta[i];
        }
#ifdef MUTANT_ADDS_TO_OUTPUT
        if (dgamma) dgamma[i] += sum_g;
#else
        if (dgamma) dgamma[i] = sum_g;
#endif
        if (dbeta) dbeta[i] = sum_b;
    }
#ifdef MUTANT_WRITES_AFTER_DGAMMA
    if (dgamma) ((volatile float *)dgamma)[c->cols] = 0;
#endif
    return status;
}
