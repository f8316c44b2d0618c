/*
 * A kernel in the style of llm.c (plain loops, mean and rstd saved, gradients added to buffers that the caller has
 * cleared), and below it the wrapper that makes it a backend. Only the wrapper knows lnbench.
 */
#include <math.h>
#include <string.h>

static void layernorm_forward(float *out, float *mean, float *rstd, const float *inp, const float *weight,
                              const float *bias, int rows, int C) {
    const float eps = 1e-5f;
    for (int r = 0; r < rows; r++) {
        const float *x = inp + (long)r * C;
        float m = 0.0f, v = 0.0f;
        for (int i = 0; i < C; i++) m += x[i];
        m /= C;
        for (int i = 0; i < C; i++) v += (x[i] - m) * (x[i] - m);
        v /= C;
        float s = 1.0f / sqrtf(v + eps);
        for (int i = 0; i < C; i++) out[(long)r * C + i] = (x[i] - m) * s * weight[i] + bias[i];
        mean[r] = m;
        rstd[r] = s;
    }
}

static void layernorm_backward(float *dinp, float *dweight, float *dbias, const float *dout, const float *inp,
                               const float *weight, const float *mean, const float *rstd, int rows, int C) {
    for (int r = 0; r < rows; r++) {
        const float *dy = dout + (long)r * C, *x = inp + (long)r * C;
        float dnorm_mean = 0.0f, dnorm_norm_mean = 0.0f;
        for (int i = 0; i < C; i++) {
            float norm = (x[i] - mean[r]) * rstd[r], dnorm = weight[i] * dy[i];
            dnorm_mean += dnorm;
            dnorm_norm_mean += dnorm * norm;
        }
        dnorm_mean /= C;
        dnorm_norm_mean /= C;
        for (int i = 0; i < C; i++) {
            float norm = (x[i] - mean[r]) * rstd[r], dnorm = weight[i] * dy[i];
            dbias[i] += dy[i];
            dweight[i] += norm * dy[i];
            dinp[(long)r * C + i] += (dnorm - dnorm_mean - norm * dnorm_norm_mean) * rstd[r];
        }
    }
}

/* --- wrapper --- */
#include "lnbench.h"

static _Thread_local const char *reason = "";

uint32_t lnb_abi_version(void) { return LNB_ABI_VERSION; }
const char *lnb_describe(void) { return "name=llmc-style;version=1;statistics=rstd;deterministic=yes;threads=ignored"; }
const char *lnb_reason(void) { return reason; }

static int check(const lnb_layer_norm *c) {
    int strided = c->x_row_stride != c->cols || c->y_row_stride != c->cols || c->dy_row_stride != c->cols ||
                  c->dx_row_stride != c->cols;
    if (c->size < sizeof *c) reason = "the struct is of an older lnbench.h";
    else if (c->dtype != LNB_F32 || c->affine_dtype != LNB_F32) reason = "the kernel takes float32 only";
    else if ((float)c->epsilon != 1e-5f) reason = "the kernel's epsilon is 1e-5";
    else if (strided && c->rows > 1) reason = "the kernel takes contiguous rows only";
    else return LNB_OK;
    return LNB_UNSUPPORTED;
}

int lnb_layer_norm_forward(const lnb_layer_norm *c) {
    if (check(c) != LNB_OK) return LNB_UNSUPPORTED;
    if (!c->gamma || !c->beta || !c->y || !c->mean || !c->stat) {
        reason = "the kernel needs gamma and beta, and saves mean and rstd";
        return LNB_UNSUPPORTED;
    }
    layernorm_forward(c->y, c->mean, c->stat, c->x, c->gamma, c->beta, (int)c->rows, (int)c->cols);
    return LNB_OK;
}

int lnb_layer_norm_backward(const lnb_layer_norm *c) {
    if (check(c) != LNB_OK) return LNB_UNSUPPORTED;
    if (!c->gamma || !c->mean || !c->stat || !c->dx || !c->dgamma || !c->dbeta) {
        reason = "the kernel needs gamma, mean and rstd, and gives all three gradients";
        return LNB_UNSUPPORTED;
    }
    size_t row = (size_t)c->cols * sizeof(float);
    memset(c->dx, 0, (size_t)c->rows * row);
    memset(c->dgamma, 0, row);
    memset(c->dbeta, 0, row);
    layernorm_backward(c->dx, c->dgamma, c->dbeta, c->dy, c->x, c->gamma, c->mean, c->stat, (int)c->rows, (int)c->cols);
    return LNB_OK;
}
