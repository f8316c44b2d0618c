/* What the C tests share: types, pseudo-random numbers, guarded memory, the reference and its error bounds. */
#ifndef LNB_TESTS_SUPPORT_H
#define LNB_TESTS_SUPPORT_H

#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lnbench.h"

typedef long double ld;

static const char *const TYPE_NAMES[] = {"f32", "f64", "f16", "bf16"};

static inline int64_t size_of(int type) { return type == LNB_F64 ? 8 : type == LNB_F32 ? 4 : 2; }
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* splitmix64 */
static uint64_t random_state = 1;
static inline uint64_t random_u64(void) {
    uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static inline int64_t random_below(int64_t n) { return (int64_t)(random_u64() % (uint64_t)n); }
static inline double random_unit(void) { return (double)(random_u64() >> 11) * 0x1p-53; }
static inline double random_normal(void) {
    double s = -6;
    for (int i = 0; i < 12; i++) s += random_unit();
    return s;
}

/* Half types are converted by exact scaling, unlike in the library. */
static inline double half_value(uint16_t h, int type) {
    int mantissa = type == LNB_F16 ? 10 : 7, bias = type == LNB_F16 ? 15 : 127;
    int exponents = type == LNB_F16 ? 31 : 255;
    int e = h >> mantissa & exponents, m = h & ((1 << mantissa) - 1);
    double sign = h & 0x8000 ? -1 : 1;
    if (e == exponents) return m ? (double)NAN : sign * (double)INFINITY;
    if (e == 0) return sign * ldexp(m, 1 - bias - mantissa);
    return sign * ldexp(m + (1 << mantissa), e - bias - mantissa);
}

static inline uint16_t half_bits(double v, int type) {
    int mantissa = type == LNB_F16 ? 10 : 7, bias = type == LNB_F16 ? 15 : 127;
    int exponents = type == LNB_F16 ? 31 : 255, e;
    uint16_t sign = signbit(v) ? 0x8000 : 0;
    if (isnan(v)) return (uint16_t)(sign | exponents << mantissa | 1 << (mantissa - 1));
    if (v == 0) return sign;
    if (isinf(v)) return (uint16_t)(sign | exponents << mantissa);
    frexp(v, &e);
    if (e - 1 < 1 - bias) e = 2 - bias;
    int64_t units = (int64_t)nearbyint(ldexp(fabs(v), mantissa + 1 - e)); /* ties to even */
    int64_t bits = units + ((int64_t)(e - 2 + bias) << mantissa);
    return (uint16_t)(sign | least(bits, (int64_t)exponents << mantissa));
}

static inline double get(const void *p, int64_t i, int type) {
    if (type == LNB_F32) return ((const float *)p)[i];
    if (type == LNB_F64) return ((const double *)p)[i];
    return half_value(((const uint16_t *)p)[i], type);
}

static inline void set(void *p, int64_t i, double v, int type) {
    if (type == LNB_F32) ((float *)p)[i] = (float)v;
    else if (type == LNB_F64) ((double *)p)[i] = v;
    else ((uint16_t *)p)[i] = half_bits(v, type);
}

static inline void *take(size_t bytes) {
    void *p = malloc(bytes ? bytes : 1);
    if (!p) exit(2);
    return p;
}

/* A block of bytes with inaccessible pages before and after. */
typedef struct {
    char *map, *data;
    size_t length;
} guarded;

/* at_end: the data ends at the guard, shifted down so that it is `shift` bytes off; otherwise it begins at the guard. */
static inline guarded guard(size_t bytes, int at_end, size_t align) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (bytes + page - 1) / page * page + page;
    guarded g = {NULL, NULL, inner + 2 * page};
    g.map = mmap(NULL, g.length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.map == MAP_FAILED) exit(2);
    memset(g.map + page, 0xff, inner); /* NaN in every type */
    mprotect(g.map, page, PROT_NONE);
    mprotect(g.map + page + inner, page, PROT_NONE);
    g.data = at_end ? g.map + page + (inner - bytes) / align * align : g.map + page;
    return g;
}

static inline void unguard(guarded *g) { munmap(g->map, g->length); }

/* Expected results of one problem and how far from them a sound program may be. */
typedef struct {
    int64_t rows, cols;
    ld *y, *y_bound, *mean, *mean_bound, *rstd, *rstd_bound, *var;
    ld *dx, *dx_bound, *dgamma, *dgamma_bound, *dbeta, *dbeta_bound;
} reference;

typedef struct {
    int type, affine;
    int64_t rows, cols;
    double epsilon;
    const double *x, *dy, *gamma, *beta; /* already rounded to the types; gamma and beta may be NULL */
} problem;

static inline ld gam(ld k, ld u) { return k * u < 1 ? k * u / (1 - k * u) : (ld)INFINITY; }
static inline ld tier1(int64_t n) { return (ld)least(n - 1, 2 * (int64_t)ceil(sqrt((double)n)) + 4); }

static inline ld stored(ld bound, ld value, int type) {
    ld u = type == LNB_F16 ? 0x1p-11L : type == LNB_BF16 ? 0x1p-8L : type == LNB_F32 ? 0x1p-24L : 0x1p-53L;
    ld tiny = type == LNB_F16 ? 0x1p-25L : type == LNB_F64 ? 0x1p-1070L : 0x1p-133L;
    return 1.02L * (bound + u * (fabsl(value) + bound)) + tiny;
}

/* One row: statistics, y, dx and the row's part of dgamma and dbeta. The letters are those of the README. */
static inline void reference_row(const problem *p, reference *f, int64_t row) {
    const int64_t n = p->cols;
    const double *x = p->x + row * n, *dy = p->dy + row * n;
    ld u = p->type == LNB_F64 ? 0x1p-53L : 0x1p-24L, A = tier1(n), sum = 0, abs = 0, square = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i], abs += fabsl((ld)x[i]);
    ld mu = sum / n;
    for (int64_t i = 0; i < n; i++) square += (x[i] - mu) * (x[i] - mu);
    ld var = square / n, s = sqrtl(var + p->epsilon), r = 1 / s, rho = s > 0 ? var / (s * s) : 0;
    ld delta = gam(A + 2, u) * abs / n, up = gam(A + 5, u) * rho, dn = up;
    up += (1 + gam(A + 5, u)) * (delta / s) * (delta / s);
    ld eps_s = fmaxl(1 - 1 / sqrtl(1 + up), dn < 1 ? 1 / sqrtl(1 - dn) - 1 : (ld)INFINITY) + 4 * u;
    ld mean_g = 0, abs_g = 0, h = 0, eh1 = 0, eh2 = 0;
    f->mean[row] = mu, f->mean_bound[row] = 1.02L * delta + 2 * u * fabsl(mu) + 0x1p-149L;
    f->rstd[row] = r, f->rstd_bound[row] = 1.02L * eps_s * r, f->var[row] = var;
    for (int64_t i = 0; i < n; i++) {
        ld xhat = (x[i] - mu) * r, gamma = p->gamma ? p->gamma[i] : 1, beta = p->beta ? p->beta[i] : 0;
        ld e = delta / s * (1 + eps_s) + fabsl(xhat) * (eps_s + 2 * u), y = xhat * gamma + beta, g = gamma * dy[i];
        ld E = fabsl(gamma) * e + 2 * u * fabsl(gamma * xhat) + u * fabsl(beta) + 2 * u * fabsl(y);
        f->y[row * n + i] = y, f->y_bound[row * n + i] = stored(E, y, p->type);
        mean_g += g, abs_g += fabsl(g), h += g * xhat;
        eh1 += fabsl(g) * (fabsl(xhat) + e), eh2 += fabsl(g) * e;
        ld A_M = tier1(p->rows);
        f->dgamma[i] += dy[i] * xhat, f->dbeta[i] += dy[i];
        f->dgamma_bound[i] += fabsl((ld)dy[i]) * e + gam(A_M + 2, u) * fabsl((ld)dy[i]) * (fabsl(xhat) + e);
        f->dbeta_bound[i] += gam(A_M, u) * fabsl((ld)dy[i]);
    }
    mean_g /= n, h /= n;
    ld eg = gam(A + 3, u) * abs_g / n, eh = gam(A + 4, u) * eh1 / n + eh2 / n;
    for (int64_t i = 0; i < n; i++) {
        ld xhat = (x[i] - mu) * r, g = (p->gamma ? p->gamma[i] : 1) * (ld)dy[i];
        ld e = delta / s * (1 + eps_s) + fabsl(xhat) * (eps_s + 2 * u), dx = r * (g - mean_g - xhat * h);
        ld t = u * fabsl(g) + eg + fabsl(h) * e + (fabsl(xhat) + e) * eh;
        t += 3 * u * (fabsl(g) + fabsl(mean_g) + fabsl(xhat * h));
        f->dx[row * n + i] = dx;
        f->dx_bound[row * n + i] = stored(r * t * (1 + eps_s) + (eps_s + 2 * u) * fabsl(dx), dx, p->type);
    }
}

static inline reference refer(const problem *p) {
    reference f = {.rows = p->rows, .cols = p->cols};
    size_t wide_bytes = (size_t)(p->rows * p->cols + 1) * sizeof(ld);
    ld **matrices[] = {&f.y, &f.y_bound, &f.dx, &f.dx_bound}, **rows[] = {&f.mean, &f.mean_bound, &f.rstd, &f.rstd_bound, &f.var};
    ld **cols[] = {&f.dgamma, &f.dgamma_bound, &f.dbeta, &f.dbeta_bound};
    for (int i = 0; i < 4; i++) *matrices[i] = take(wide_bytes);
    for (int i = 0; i < 5; i++) *rows[i] = take((size_t)(p->rows + 1) * sizeof(ld));
    for (int i = 0; i < 4; i++) *cols[i] = calloc((size_t)p->cols + 1, sizeof(ld));
    for (int64_t r = 0; r < p->rows; r++) reference_row(p, &f, r);
    for (int64_t i = 0; i < p->cols; i++) {
        f.dgamma_bound[i] = stored(f.dgamma_bound[i], f.dgamma[i], p->affine);
        f.dbeta_bound[i] = stored(f.dbeta_bound[i], f.dbeta[i], p->affine);
    }
    return f;
}

static inline void release(reference *f) {
    ld *all[] = {f->y, f->y_bound, f->dx, f->dx_bound, f->mean, f->mean_bound, f->rstd, f->rstd_bound, f->var, f->dgamma,
                 f->dgamma_bound, f->dbeta, f->dbeta_bound};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

#endif
