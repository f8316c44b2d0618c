/*
 * What the target-free part of the library and the kernels compiled per target agree upon: a task (one call,
 * checked and planned) and the table of functions that a target offers.
 */
#ifndef LNB_KERNELS_H
#define LNB_KERNELS_H

#include <stdint.h>

#include "lnbench.h"

/* Sums of one chunk of columns of one row. */
struct lnb_sums {
    double first, second;
};

/* Doubles that a kernel may keep per row in the workspace. */
enum { LNB_ROW_DOUBLES = 8 };

struct lnb_forward;

struct lnb_task {
    const lnb_layer_norm *call;
    int stream;            /* write the large output with non-temporal stores */
    int ahead;             /* ask for the next rows before they are needed */
    const struct lnb_forward *recompute; /* backward: computes the statistics when they are not given */
    int want_params;       /* backward: dgamma or dbeta is wanted */
    int64_t chunks;        /* chunks of columns in a row */
    int64_t block_rows;    /* backward: rows whose parameter gradients are summed in one place */
    int64_t blocks;
    int64_t pitch;         /* elements from one array of partial sums to the next */
    void *partials;        /* [blocks][2][pitch]: dgamma, then dbeta */
    void *direct[2];       /* where a single block writes, or NULL: the partial sums */
    struct lnb_sums *sums; /* column split only: [rows][chunks] */
    double *rows;          /* column split only: [rows][LNB_ROW_DOUBLES] */
};

/*
 * The functions for one pair of types. Two ways to share out the work give the same bits: whole rows (whole
 * blocks of rows backward), or ranges of column chunks with a serial step between the phases.
 */
struct lnb_forward {
    int64_t chunk; /* columns in a chunk */
    void (*rows)(const struct lnb_task *, int64_t first, int64_t last);
    void (*sums)(const struct lnb_task *, int64_t first_chunk, int64_t last_chunk);
    void (*finish)(const struct lnb_task *);
    void (*columns)(const struct lnb_task *, int64_t first_chunk, int64_t last_chunk);
    void (*statistics)(const struct lnb_task *, int64_t row, void *row_stat);
};

struct lnb_backward {
    int64_t chunk;
    void (*blocks)(const struct lnb_task *, int64_t first, int64_t last);
    void (*start)(const struct lnb_task *);
    void (*sums)(const struct lnb_task *, int64_t first_chunk, int64_t last_chunk);
    void (*finish)(const struct lnb_task *);
    void (*columns)(const struct lnb_task *, int64_t first_chunk, int64_t last_chunk);
    void (*reduce)(const struct lnb_task *, int64_t first_chunk, int64_t last_chunk);
};

/* One instruction set: kernels by type of data and whether gamma and beta are float32 beside half data. */
struct lnb_target {
    const char *name;
    int (*supported)(void);
    const struct lnb_forward *forward[4][2];
    const struct lnb_backward *backward[4][2];
};

/* Names of the tables that a target defines, as lnb_forward_avx2_f32. */
#define LNB_PASTE(pass, target, types) lnb_##pass##_##target##_##types
#define LNB_SYMBOL(pass, target, types) LNB_PASTE(pass, target, types)

int lnb_has_baseline(void);
int lnb_has_avx2(void);
int lnb_has_avx512(void);
int lnb_has_avx512_bf16(void);
int lnb_has_neon(void);

#endif
