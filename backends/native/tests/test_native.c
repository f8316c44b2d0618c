/*
 * The library's own tests: every target this processor can run, every pair of types, sizes around the vector length,
 * laws that break naive arithmetic, guard pages on both sides of every array. The first run of a problem (one
 * thread, dense rows) is held to the rounding-error bound of its README (tier 1); every other way to
 * run it (threads, strides, addresses, in place, fewer rows, fewer outputs) must give the same bits.
 */
#include <pthread.h>
#include <sys/wait.h>

#include "runs.h"

static results results_for(const problem *p) {
    size_t big = (size_t)(p->rows * p->cols * 8 + 8), rows = (size_t)(p->rows * 8 + 8), cols = (size_t)(p->cols * 8 + 8);
    results r = {take(big), take(rows), take(rows), take(big), take(cols), take(cols)};
    memset(r.y, 0, big), memset(r.dx, 0, big);
    return r;
}

static void free_results(results *r) {
    free(r->y), free(r->mean), free(r->stat), free(r->dx), free(r->dgamma), free(r->dbeta);
}

/* Largest error over bound, which must not exceed 1. */
static void hold(const problem *p, const manner *m, const char *what, const char *got, const ld *want, const ld *bound, int64_t n,
                 int type) {
    for (int64_t i = 0; i < n; i++) {
        ld v = get(got, i, type);
        checks++;
        if (type == LNB_F16 && fabsl(want[i]) + bound[i] >= 65504) continue; /* may round to infinity */
        if (isfinite(bound[i]) && !(fabsl(v - want[i]) <= bound[i])) {
            char text[200];
            snprintf(text, sizeof text, "%s[%lld] is %.9Lg, expected %.9Lg +- %.3Lg", what, (long long)i, v, want[i], bound[i]);
            fail(p, m, text);
            return;
        }
    }
}

static void same(const problem *p, const manner *m, const char *what, const char *a, const char *b, int64_t bytes) {
    checks++;
    if (memcmp(a, b, (size_t)bytes)) fail(p, m, what);
}

/* Compares a run's outputs with the first run's, row by row where the run had fewer rows. */
static void same_forward(const problem *p, const manner *m, const results *first, const results *now) {
    int64_t row = p->cols * size_of(p->type), stat = size_of(m->stat_type);
    if (!m->no_y) same(p, m, "y has other bits", first->y + m->first * row, now->y, m->rows * row);
    if (!m->no_mean) same(p, m, "mean has other bits", first->mean + m->first * stat, now->mean, m->rows * stat);
    if (!m->no_stat) same(p, m, "stat has other bits", first->stat + m->first * stat, now->stat, m->rows * stat);
}

static void same_backward(const problem *p, const manner *m, const results *first, const results *now) {
    int64_t row = p->cols * size_of(p->type), cols = p->cols * size_of(p->affine);
    if (!m->no_dx) same(p, m, "dx has other bits", first->dx + m->first * row, now->dx, m->rows * row);
    if (m->rows < p->rows) return;
    if (!m->no_dgamma) same(p, m, "dgamma has other bits", first->dgamma, now->dgamma, cols);
    if (!m->no_dbeta) same(p, m, "dbeta has other bits", first->dbeta, now->dbeta, cols);
}

static void hold_all(const problem *p, const manner *m, const reference *f, const results *r, int backward) {
    int64_t all = p->rows * p->cols;
    if (!backward) {
        hold(p, m, "y", r->y, f->y, f->y_bound, all, p->type);
        hold(p, m, "mean", r->mean, f->mean, f->mean_bound, p->rows, m->stat_type);
        hold(p, m, "rstd", r->stat, f->rstd, f->rstd_bound, p->rows, m->stat_type);
        return;
    }
    hold(p, m, "dx", r->dx, f->dx, f->dx_bound, all, p->type);
    hold(p, m, "dgamma", r->dgamma, f->dgamma, f->dgamma_bound, p->cols, p->affine);
    hold(p, m, "dbeta", r->dbeta, f->dbeta, f->dbeta_bound, p->cols, p->affine);
}

static manner random_manner(const problem *p, const manner *base) {
    static const int threads[] = {1, 2, 3, 5, 8};
    manner m = *base;
    m.threads = threads[random_below(5)];
    m.at_end = (int)random_below(2);
    m.pad = random_below(2) ? (int)random_below(40) : 0;
    m.in_place = random_below(4) == 0;
    if (random_below(3) == 0) m.no_y = (int)random_below(2), m.no_mean = (int)random_below(2), m.no_stat = (int)random_below(2);
    if (random_below(3) == 0) m.no_dx = (int)random_below(2), m.no_dgamma = (int)random_below(2), m.no_dbeta = (int)random_below(2);
    m.in_place = m.in_place && !m.no_y && !m.no_dx;
    if (random_below(4) == 0) m.first = random_below(p->rows), m.rows = 1 + random_below(p->rows - m.first);
    return m;
}

/* Every output asked for in a kind must agree with the others: rstd is held to the bound, std and var to it. */
static void check_kinds(const problem *p, const manner *base, const reference *f, const results *first) {
    results r = results_for(p);
    for (int kind = LNB_STD; kind <= LNB_VAR; kind++) {
        manner m = *base;
        m.stat_kind = kind, m.stat_type = p->type == LNB_F64 || random_below(2) ? LNB_F64 : LNB_F32;
        run_forward(p, &m, &r);
        same(p, &m, "y depends on the kind of statistics", first->y, r.y, p->rows * p->cols * size_of(p->type));
        for (int64_t i = 0; i < p->rows; i++) {
            ld v = get(r.stat, i, m.stat_type), s = kind == LNB_STD ? v : sqrtl(v + p->epsilon), e = f->rstd_bound[i] * 2 + 4 * 0x1p-24L * f->rstd[i];
            if (isfinite(e) && !(fabsl(1 / s - f->rstd[i]) <= e)) fail(p, &m, "std or var is wrong");
        }
        run_backward(p, &m, &r, &r);
        hold_all(p, &m, f, &r, 1);
    }
    free_results(&r);
}

static void check_problem(const problem *p, int variations) {
    manner base = {.threads = 1, .rows = p->rows, .stat_kind = LNB_RSTD, .stat_type = p->type == LNB_F64 ? LNB_F64 : LNB_F32};
    manner again = base;
    reference f = refer(p);
    results first = results_for(p), recomputed = results_for(p), now = results_for(p);
    again.recompute = 1;
    run_forward(p, &base, &first);
    run_backward(p, &base, &first, &first);
    run_backward(p, &again, &first, &recomputed);
    hold_all(p, &base, &f, &first, 0);
    hold_all(p, &base, &f, &first, 1);
    hold_all(p, &again, &f, &recomputed, 1);
    check_kinds(p, &base, &f, &first);
    for (int i = 0; i < variations; i++) {
        manner m = random_manner(p, &base);
        run_forward(p, &m, &now);
        same_forward(p, &m, &first, &now);
        m.recompute = (int)random_below(2);
        run_backward(p, &m, &first, &now);
        same_backward(p, &m, m.recompute ? &recomputed : &first, &now);
    }
    release(&f);
    free_results(&first), free_results(&recomputed), free_results(&now);
}

/* Laws of x. Values are rounded to the type afterwards. */
enum { NORMAL, OFFSET, CONSTANT, FIRST_SPIKE, MIDDLE_SPIKE, NARROW, LARGE, STEP, UNLIKE, TINY, LAWS };

static double draw(int law, int type, int64_t row, int64_t i, int64_t n) {
    double big = type == LNB_F16 ? 60000 : 1e4;
    switch (law) {
    case OFFSET: return (row % 2 ? -1 : 1) * (type == LNB_F16 ? 1e3 : 1e4) + random_normal();
    case CONSTANT: return (double)(row % 7) - 3;
    case FIRST_SPIKE: return i == 0 ? big : 1e-3 * random_normal();
    case MIDDLE_SPIKE: return i == n / 2 ? -big : random_normal();
    case NARROW: return 40000 + (double)random_below(4);
    case LARGE: return (type == LNB_F16 ? 65504 : 1e15) * (2 * random_unit() - 1);
    case STEP: return i < n / 16 + 1 ? 100 : random_normal();
    case UNLIKE: return random_normal() + (row % 3 == 1 ? 8 : 0);
    case TINY: return random_normal() * (type == LNB_F16 ? 1e-6 : 1e-38);
    default: return random_normal() * (1 + (double)(row % 5));
    }
}

static double *values(int64_t count, int type) {
    double *v = take((size_t)(count + 1) * sizeof *v);
    for (int64_t i = 0; i < count; i++) v[i] = random_normal();
    (void)type;
    return v;
}

static void round_all(double *v, int64_t count, int type) {
    double cell;
    for (int64_t i = 0; i < count; i++) {
        set(&cell, 0, v[i], type);
        v[i] = get(&cell, 0, type);
    }
}

static void check_shape(int type, int affine, int64_t rows, int64_t cols, int law, int variations) {
    static const double epsilons[] = {1e-5, 1e-12, 0.5, 1e-3};
    int64_t all = rows * cols;
    double *x = values(all, type), *dy = values(all, type), *gamma = values(cols, type), *beta = values(cols, type);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < cols; i++) x[r * cols + i] = draw(law, type, r, i, cols);
    }
    round_all(x, all, type), round_all(dy, all, type), round_all(gamma, cols, affine), round_all(beta, cols, affine);
    problem p = {type, affine, rows, cols, epsilons[random_below(4)], x, dy, random_below(4) ? gamma : NULL, random_below(4) ? beta : NULL};
    check_problem(&p, variations);
    free(x), free(dy), free(gamma), free(beta);
}

static const int PAIRS[][2] = {{LNB_F32, LNB_F32},   {LNB_F64, LNB_F64},   {LNB_F16, LNB_F16},
                               {LNB_F16, LNB_F32},   {LNB_BF16, LNB_BF16}, {LNB_BF16, LNB_F32}};

static void check_sizes(int effort) {
    static const int64_t cols[] = {1,   2,   3,   5,   7,   8,   9,   15,  16,  17,   31,   32,   33,   63,   64,  65, 101,
                                   127, 128, 129, 255, 257, 509, 512, 768, 1021, 1024, 2047, 2049, 4096, 4100, 9001};
    static const int64_t rows[] = {1, 2, 3, 4, 5, 7, 17, 33, 70};
    for (size_t pair = 0; pair < 6; pair++) {
        for (size_t i = 0; i < sizeof cols / sizeof *cols; i++) {
            for (int law = 0; law < LAWS; law++) {
                int64_t most = cols[i] > 1100 ? 5 : cols[i] > 200 ? 7 : 9;
                if (effort < 2 && random_below(effort ? 3 : 30)) continue;
                check_shape(PAIRS[pair][0], PAIRS[pair][1], rows[random_below(most)], cols[i], law, 3 * effort + 1);
            }
        }
    }
}

static void check_extremes(int effort) {
    for (size_t pair = 0; pair < 6; pair++) {
        if (effort == 0 && pair % 2) continue;
        check_shape(PAIRS[pair][0], PAIRS[pair][1], 8192, 9, NORMAL, effort);
        check_shape(PAIRS[pair][0], PAIRS[pair][1], 1, 70001, OFFSET, 2 * effort);
        check_shape(PAIRS[pair][0], PAIRS[pair][1], 3, 20011, STEP, 2 * effort);
        if (effort && pair < 2) check_shape(PAIRS[pair][0], PAIRS[pair][1], 3, 262149, OFFSET, 1); /* long rows */
        if (effort < 2) continue;
        check_shape(PAIRS[pair][0], PAIRS[pair][1], 8192, 64, OFFSET, effort);
        check_shape(PAIRS[pair][0], PAIRS[pair][1], 2, 1 << 20, NORMAL, effort);
    }
}

/* Rows of equal integers and rows of one column: y is beta and dx is 0, exactly. */
static void check_exact(void) {
    for (int64_t cols = 1; cols < 300; cols = cols * 3 / 2 + 1) {
        for (size_t pair = 0; pair < 6; pair++) {
            int type = PAIRS[pair][0], affine = PAIRS[pair][1];
            double *x = values(3 * cols, type), *dy = values(3 * cols, type), *beta = values(cols, type), *gamma = values(cols, type);
            for (int64_t i = 0; i < 3 * cols; i++) x[i] = (double)(i / cols * 37 - 5), dy[i] = cols == 1 ? dy[i] : 2;
            round_all(dy, 3 * cols, type), round_all(beta, cols, affine), round_all(gamma, cols, affine);
            problem p = {type, affine, 3, cols, 1e-12, x, dy, cols == 1 ? gamma : NULL, beta};
            manner m = {.threads = 1, .rows = 3, .stat_type = LNB_F64};
            results r = results_for(&p);
            double cell;
            run_forward(&p, &m, &r);
            run_backward(&p, &m, &r, &r);
            for (int64_t i = 0; i < 3 * cols; i++) {
                set(&cell, 0, beta[i % cols], type);
                if (get(r.y, i, type) != get(&cell, 0, type)) fail(&p, &m, "y of a constant row is not beta");
                if (get(r.dx, i, type) != 0) fail(&p, &m, "dx of a constant row with constant g is not 0");
            }
            free(x), free(dy), free(beta), free(gamma), free_results(&r);
        }
    }
}

/* A row with NaN or an infinity leaves the bits of the others alone and is NaN itself. */
static void check_contamination(void) {
    for (size_t pair = 0; pair < 6; pair++) {
        int type = PAIRS[pair][0], affine = PAIRS[pair][1];
        const int64_t rows = 7, cols = 333;
        double *x = values(rows * cols, type), *dy = values(rows * cols, type);
        round_all(x, rows * cols, type), round_all(dy, rows * cols, type);
        problem p = {type, affine, rows, cols, 1e-5, x, dy, NULL, NULL};
        manner m = {.threads = 2, .rows = rows, .stat_type = LNB_F64};
        results clean = results_for(&p), dirty = results_for(&p);
        run_forward(&p, &m, &clean);
        run_backward(&p, &m, &clean, &clean);
        x[2 * cols + 300] = NAN, x[5 * cols + 2] = INFINITY, x[3 * cols + 200] = -INFINITY;
        run_forward(&p, &m, &dirty);
        run_backward(&p, &m, &dirty, &dirty);
        int64_t bytes = cols * size_of(type);
        for (int64_t r = 0; r < rows; r++) {
            if (r == 2 || r == 3 || r == 5) {
                for (int64_t i = 0; i < cols; i++) {
                    if (!isnan(get(dirty.y, r * cols + i, type))) fail(&p, &m, "y of a contaminated row is not NaN");
                    if (!isnan(get(dirty.dx, r * cols + i, type))) fail(&p, &m, "dx of a contaminated row is not NaN");
                }
                continue;
            }
            same(&p, &m, "a clean row of y changed", clean.y + r * bytes, dirty.y + r * bytes, bytes);
            same(&p, &m, "a clean row of dx changed", clean.dx + r * bytes, dirty.dx + r * bytes, bytes);
        }
        same(&p, &m, "dbeta changed", clean.dbeta, dirty.dbeta, cols * size_of(affine));
        free(x), free(dy), free_results(&clean), free_results(&dirty);
    }
}

#include "interface.h"

static void check_target(const char *name, int effort) {
    char expected[64];
    target = name;
    random_state = 12345;
    if (lnb_set_target(name) != LNB_OK || strcmp(lnb_target(), name)) {
        fprintf(stderr, "FAILED target %s cannot be set: %s\n", name, lnb_reason());
        failures++;
        return;
    }
    snprintf(expected, sizeof expected, "target=%s;", name);
    if (!strstr(lnb_describe(), expected)) fprintf(stderr, "FAILED %s\n", lnb_describe()), failures++;
    long before = checks;
    check_empty(), check_refusals(), check_broadcast(), check_exact(), check_contamination();
    check_concurrent();
    if (effort) check_fork(); /* emulators do not survive the fork of a program with threads */
    check_sizes(effort), check_extremes(effort);
    printf("%s: %ld checks\n", name, checks - before);
}

/* Argument: effort, 0 (for emulators), 1 (default) or 2. Further arguments: targets that must be among those tested. */
int main(int argc, char **argv) {
    char names[64];
    int effort = argc > 1 ? atoi(argv[1]) : 1;
    snprintf(names, sizeof names, "%s", lnb_targets());
    for (int i = 2; i < argc; i++) {
        if (!strstr(names, argv[i])) fprintf(stderr, "FAILED target %s is not among %s\n", argv[i], names), failures++;
    }
    for (char *rest, *name = strtok_r(names, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) check_target(name, effort);
    if (failures) fprintf(stderr, "%d failures\n", failures);
    else printf("all passed\n");
    return failures ? 1 : 0;
}
