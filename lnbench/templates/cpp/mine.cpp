// A layer normalization backend for lnbench: forward and backward, float32 and float64, one thread.
//
// kernel.hpp holds the arithmetic as templates; this file holds what lnbench calls. Nothing may throw across it.
#include "kernel.hpp"

namespace {

thread_local const char *reason = "";

int refuse(int code, const char *sentence) {
    reason = sentence;
    return code;
}

// LNB_OK, or why this call cannot be served.
int check(const lnb_layer_norm &call) {
    if (call.size < sizeof(lnb_layer_norm)) return refuse(LNB_INVALID, "the struct is of an older lnbench.h");
    if (call.dtype != LNB_F32 && call.dtype != LNB_F64)
        return refuse(LNB_UNSUPPORTED, "mine takes float32 and float64 only");
    if ((call.gamma || call.beta || call.dgamma || call.dbeta) && call.affine_dtype != call.dtype)
        return refuse(LNB_UNSUPPORTED, "mine takes gamma and beta in the type of x only");
    if ((call.mean || call.stat) && call.stat_dtype != call.dtype)
        return refuse(LNB_UNSUPPORTED, "mine keeps mean and rstd in the type of x only");
    if (call.stat && call.stat_kind != LNB_RSTD) return refuse(LNB_UNSUPPORTED, "mine keeps rstd only");
    if (call.rows < 0 || call.cols < 0) return refuse(LNB_INVALID, "rows and cols must not be negative");
    return LNB_OK;
}

}  // namespace

extern "C" {

uint32_t lnb_abi_version(void) { return LNB_ABI_VERSION; }

const char *lnb_describe(void) {
    return "name=mine;version=1;statistics=rstd;deterministic=yes;batch_invariant=yes;threads=ignored";
}

const char *lnb_reason(void) { return reason; }

int lnb_layer_norm_forward(const lnb_layer_norm *call) {
    if (int code = check(*call); code != LNB_OK) return code;
    if (call->dtype == LNB_F32) mine::forward<float>(*call);
    else mine::forward<double>(*call);
    return LNB_OK;
}

int lnb_layer_norm_backward(const lnb_layer_norm *call) {
    if (int code = check(*call); code != LNB_OK) return code;
    if (call->dtype == LNB_F32) mine::backward<float>(*call);
    else mine::backward<double>(*call);
    return LNB_OK;
}

// Backward adds dgamma and dbeta up in blocks of rows, and needs one row for each of them.
int64_t lnb_layer_norm_workspace(const lnb_layer_norm *call, int backward) {
    const int64_t item = call->dtype == LNB_F64 ? 8 : 4;
    return backward ? 2 * call->cols * item : 0;
}
}
