/*
 * liblnbench_native without lnbench: normalizes a small tensor and takes its gradients.
 *
 *     cc standalone.c -I<include> -L<lib> -llnbench_native -lm
 */
#include <stdio.h>
#include <stdlib.h>

#include "lnbench.h"

enum { ROWS = 2, COLS = 4 };

static int failed(const char *what, int status) {
    fprintf(stderr, "%s: status %d: %s\n", what, status, lnb_reason());
    return 1;
}

int main(void) {
    const float x[ROWS * COLS] = {1, 2, 3, 4, -1, 0, 0, 1}, dy[ROWS * COLS] = {1, 0, 0, 0, 0, 1, 0, 2};
    const float gamma[COLS] = {1, 1, 2, 2}, beta[COLS] = {0, 1, 0, 1};
    float y[ROWS * COLS], mean[ROWS], rstd[ROWS], dx[ROWS * COLS], dgamma[COLS], dbeta[COLS];
    lnb_layer_norm call = {
        .size = sizeof call, .dtype = LNB_F32, .affine_dtype = LNB_F32, .stat_dtype = LNB_F32, .stat_kind = LNB_RSTD,
        .threads = 1, .epsilon = 1e-5, .rows = ROWS, .cols = COLS, .x_row_stride = COLS, .y_row_stride = COLS,
        .dy_row_stride = COLS, .dx_row_stride = COLS, .x = x, .gamma = gamma, .beta = beta, .dy = dy, .y = y,
        .mean = mean, .stat = rstd, .dx = dx, .dgamma = dgamma, .dbeta = dbeta,
    };
    printf("%s\n", lnb_describe());
    int status = lnb_layer_norm_forward(&call);
    if (status) return failed("forward", status);
    int64_t bytes = lnb_layer_norm_workspace(&call, 1);
    if (bytes < 0) return failed("workspace", LNB_UNSUPPORTED);
    if (bytes) call.workspace = aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64);
    status = lnb_layer_norm_backward(&call);
    free(call.workspace);
    if (status) return failed("backward", status);
    for (int r = 0; r < ROWS; r++) {
        printf("row %d: mean %g rstd %g\n  y ", r, mean[r], rstd[r]);
        for (int i = 0; i < COLS; i++) printf(" %9.6f", y[r * COLS + i]);
        printf("\n  dx");
        for (int i = 0; i < COLS; i++) printf(" %9.6f", dx[r * COLS + i]);
        printf("\n");
    }
    for (int i = 0; i < COLS; i++) printf("column %d: dgamma %9.6f dbeta %g\n", i, dgamma[i], dbeta[i]);
    return 0;
}
