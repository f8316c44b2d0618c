/*
 * lnbench: layer normalization behind one small C interface.
 *
 * Any shared library that exports these symbols can be verified and timed by lnbench; liblnbench_native
 * is one of them, and can be used without lnbench as well. A library never prints, exits or aborts.
 *
 * A tensor is seen as `rows` rows of `cols` elements. For each row, with n = cols,
 *
 *     mean = sum(x) / n        var = sum((x - mean)^2) / n        rstd = 1 / sqrt(var + epsilon)
 *     xhat = (x - mean) * rstd
 *     y    = xhat * gamma + beta
 *
 *     g      = dy * gamma
 *     dx     = rstd * (g - sum(g) / n - xhat * sum(g * xhat) / n)
 *     dgamma = sum over rows of dy * xhat
 *     dbeta  = sum over rows of dy
 */
#ifndef LNBENCH_H
#define LNBENCH_H

#include <stdint.h>

#if defined(_WIN32)
#define LNB_API __declspec(dllexport)
#elif defined(__GNUC__)
#define LNB_API __attribute__((visibility("default")))
#else
#define LNB_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define LNB_ABI_VERSION 1

/* Types of elements. LNB_F16 is IEEE binary16, LNB_BF16 the upper half of an IEEE binary32. */
enum { LNB_F32 = 0, LNB_F64 = 1, LNB_F16 = 2, LNB_BF16 = 3 };

/* What a call returns. */
enum { LNB_OK = 0, LNB_UNSUPPORTED = 1, LNB_INVALID = 2, LNB_NO_MEMORY = 3, LNB_NO_THREADS = 4 };

/* What `stat` holds: 1/sqrt(var + epsilon), sqrt(var + epsilon), or var. */
enum { LNB_RSTD = 0, LNB_STD = 1, LNB_VAR = 2 };

/*
 * One call. gamma, beta, y, mean, stat, dx, dgamma and dbeta may be NULL where they are not given (gamma
 * counts as 1, beta as 0) or not wanted. Pointers need the alignment of their element type, no more. y may be
 * x and dx may be dy when the row strides agree. No other two arrays may overlap where one of them is written.
 */
typedef struct {
    uint32_t size;                              /* sizeof(lnb_layer_norm) of the caller */
    int32_t dtype, affine_dtype, stat_dtype;    /* x,y,dy,dx | gamma,beta,dgamma,dbeta | mean,stat */
    int32_t stat_kind;                          /* what `stat` holds */
    int32_t threads;                            /* 0: as many as the process may use */
    double epsilon;
    int64_t rows, cols;                         /* the tensor folded at axis; either may be 0 */
    int64_t x_row_stride, y_row_stride, dy_row_stride, dx_row_stride; /* in elements; inputs >= 0, outputs >= cols */
    const void *x, *gamma, *beta, *dy;
    void *y, *mean, *stat;                      /* forward writes mean and stat, backward reads them */
    void *dx, *dgamma, *dbeta;
    void *workspace;                            /* 64-byte aligned, undefined content */
} lnb_layer_norm;

LNB_API uint32_t lnb_abi_version(void);

/* Facts, as "key=value;key=value". The text belongs to the calling thread until its next call of this. */
LNB_API const char *lnb_describe(void);

/* Why the last call on this thread was not LNB_OK. */
LNB_API const char *lnb_reason(void);

/* Backward without mean and stat computes them from x. */
LNB_API int lnb_layer_norm_forward(const lnb_layer_norm *call);
LNB_API int lnb_layer_norm_backward(const lnb_layer_norm *call);

/* Bytes of workspace that the same struct needs; the pointers say which outputs are wanted. Negative: unsupported. */
LNB_API int64_t lnb_layer_norm_workspace(const lnb_layer_norm *call, int backward);

/*
 * What only liblnbench_native has: the instruction set ("target") it runs on. The best supported one is taken at
 * the first call, unless the environment variable LNBENCH_TARGET names another; a name that is unknown
 * or that this machine cannot run makes every call return LNB_INVALID.
 */

/* The targets this machine can run, best first, separated by commas. */
LNB_API const char *lnb_targets(void);

/* Takes the named target from now on; NULL or "" takes the best. Not for use while calls are running. */
LNB_API int lnb_set_target(const char *name);

/* The target in use, or NULL (then lnb_reason says why). */
LNB_API const char *lnb_target(void);

#ifdef __cplusplus
}
#endif

#endif
