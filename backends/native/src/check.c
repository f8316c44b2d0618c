/* Is a call sound? What it asks for must be supported, addressable and aligned. */
#include "internal.h"

/* Whether rows * stride elements can be addressed. */
static bool addressable(int64_t rows, int64_t stride, int64_t cols, int64_t size) {
    int64_t span;
    return rows == 0 || (!__builtin_mul_overflow(rows - 1, stride, &span) && !__builtin_add_overflow(span, cols, &span) &&
                         span <= INT64_MAX / size);
}

static int check_input(const lnb_layer_norm *c, const char *name, const void *p, int64_t stride) {
    if (stride < 0) return lnb_refuse(LNB_INVALID, "%s_row_stride is negative", name);
    if (!p && c->rows && c->cols) return lnb_refuse(LNB_INVALID, "%s is NULL", name);
    if (lnb_misaligned(p, lnb_size_of(c->dtype))) return lnb_refuse(LNB_INVALID, "%s is not aligned to its elements", name);
    if (!addressable(c->rows, stride, c->cols, lnb_size_of(c->dtype))) {
        return lnb_refuse(LNB_INVALID, "%s is too large to address", name);
    }
    return LNB_OK;
}

/* `in` and `in_stride`: the input that the output may overwrite in place. */
static int check_output(const lnb_layer_norm *c, const char *name, const void *p, int64_t stride, const void *in,
                        int64_t in_stride) {
    if (!p) return LNB_OK;
    if (stride < c->cols && c->rows > 1) return lnb_refuse(LNB_INVALID, "%s_row_stride is less than cols", name);
    if (lnb_misaligned(p, lnb_size_of(c->dtype))) return lnb_refuse(LNB_INVALID, "%s is not aligned to its elements", name);
    if (!addressable(c->rows, stride, c->cols, lnb_size_of(c->dtype))) {
        return lnb_refuse(LNB_INVALID, "%s is too large to address", name);
    }
    if (p == in && stride != in_stride && c->rows > 1) {
        return lnb_refuse(LNB_INVALID, "%s is in place, but its row stride is another", name);
    }
    return LNB_OK;
}

static int check_vectors(const lnb_layer_norm *c) {
    const void *affine[] = {c->gamma, c->beta, c->dgamma, c->dbeta}, *stats[] = {c->mean, c->stat};
    bool half = c->dtype == LNB_F16 || c->dtype == LNB_BF16;
    for (int i = 0; i < 4; i++) {
        if (!affine[i]) continue;
        if (c->affine_dtype != c->dtype && !(half && c->affine_dtype == LNB_F32)) {
            return lnb_refuse(LNB_UNSUPPORTED, "gamma and beta must have the type of x, or float32 beside a half type");
        }
        if (lnb_misaligned(affine[i], lnb_size_of(c->affine_dtype))) {
            return lnb_refuse(LNB_INVALID, "gamma, beta, dgamma or dbeta is not aligned to its elements");
        }
    }
    for (int i = 0; i < 2; i++) {
        if (!stats[i]) continue;
        if (c->stat_dtype != LNB_F32 && c->stat_dtype != LNB_F64) {
            return lnb_refuse(LNB_UNSUPPORTED, "mean and stat must be float32 or float64");
        }
        if (c->stat_kind < LNB_RSTD || c->stat_kind > LNB_VAR) return lnb_refuse(LNB_INVALID, "stat_kind is unknown");
        if (lnb_misaligned(stats[i], lnb_size_of(c->stat_dtype))) {
            return lnb_refuse(LNB_INVALID, "mean or stat is not aligned to its elements");
        }
    }
    return LNB_OK;
}

int lnb_check(const lnb_layer_norm *c, bool backward) {
    int status;
    if (c->dtype < LNB_F32 || c->dtype > LNB_BF16) return lnb_refuse(LNB_UNSUPPORTED, "dtype is unknown");
    if (c->rows < 0 || c->cols < 0) return lnb_refuse(LNB_INVALID, "rows or cols is negative");
    if (!(c->epsilon >= 0 && c->epsilon <= 1e300)) return lnb_refuse(LNB_INVALID, "epsilon is negative or not finite");
    if (c->threads < 0) return lnb_refuse(LNB_INVALID, "threads is negative");
    if ((status = check_vectors(c)) || (status = check_input(c, "x", c->x, c->x_row_stride))) return status;
    if (!backward) return check_output(c, "y", c->y, c->y_row_stride, c->x, c->x_row_stride);
    if ((status = check_input(c, "dy", c->dy, c->dy_row_stride))) return status;
    if ((status = check_output(c, "dx", c->dx, c->dx_row_stride, c->x, c->x_row_stride))) return status;
    return check_output(c, "dx", c->dx, c->dx_row_stride, c->dy, c->dy_row_stride);
}
