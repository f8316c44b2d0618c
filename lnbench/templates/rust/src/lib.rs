//! A layer normalization backend for lnbench: forward and backward, float32 and float64, one thread.
//!
//! `kernel` holds the arithmetic, `contract` mirrors lnbench.h; this file holds what lnbench calls.

mod contract;
mod kernel;

use contract::*;
use std::cell::Cell;
use std::ffi::{c_char, c_int, CStr};
use std::panic::catch_unwind;

thread_local! {
    static REASON: Cell<&'static CStr> = const { Cell::new(c"") };
}

fn refuse(code: c_int, sentence: &'static CStr) -> c_int {
    REASON.with(|reason| reason.set(sentence));
    code
}

/// LNB_OK, or why this call cannot be served.
fn check(call: &LayerNorm) -> c_int {
    if (call.size as usize) < size_of::<LayerNorm>() {
        return refuse(LNB_INVALID, c"the struct is of an older lnbench.h");
    }
    if call.dtype != LNB_F32 && call.dtype != LNB_F64 {
        return refuse(LNB_UNSUPPORTED, c"mine takes float32 and float64 only");
    }
    let has_affine = !(call.gamma.is_null() && call.beta.is_null() && call.dgamma.is_null() && call.dbeta.is_null());
    if has_affine && call.affine_dtype != call.dtype {
        return refuse(LNB_UNSUPPORTED, c"mine takes gamma and beta in the type of x only");
    }
    if !(call.mean.is_null() && call.stat.is_null()) && call.stat_dtype != call.dtype {
        return refuse(LNB_UNSUPPORTED, c"mine keeps mean and rstd in the type of x only");
    }
    if !call.stat.is_null() && call.stat_kind != LNB_RSTD {
        return refuse(LNB_UNSUPPORTED, c"mine keeps rstd only");
    }
    if call.rows < 0 || call.cols < 0 {
        return refuse(LNB_INVALID, c"rows and cols must not be negative");
    }
    LNB_OK
}

/// Checks, then runs; a panic becomes a code, because it must not cross into C.
fn guarded(call: &LayerNorm, run: impl Fn(&LayerNorm) + std::panic::RefUnwindSafe) -> c_int {
    let code = check(call);
    if code != LNB_OK {
        return code;
    }
    match catch_unwind(|| run(call)) {
        Ok(()) => LNB_OK,
        Err(_) => refuse(LNB_INVALID, c"mine panicked"),
    }
}

#[no_mangle]
pub extern "C" fn lnb_abi_version() -> u32 {
    1
}

#[no_mangle]
pub extern "C" fn lnb_describe() -> *const c_char {
    c"name=mine;version=1;statistics=rstd;deterministic=yes;batch_invariant=yes;threads=ignored".as_ptr()
}

#[no_mangle]
pub extern "C" fn lnb_reason() -> *const c_char {
    REASON.with(|reason| reason.get().as_ptr())
}

/// # Safety
/// `call` and its arrays must be as lnbench.h describes them; so for the functions below.
#[no_mangle]
pub unsafe extern "C" fn lnb_layer_norm_forward(call: *const LayerNorm) -> c_int {
    guarded(&*call, |call| unsafe {
        if call.dtype == LNB_F32 {
            kernel::forward::<f32>(call)
        } else {
            kernel::forward::<f64>(call)
        }
    })
}

/// # Safety
/// See `lnb_layer_norm_forward`.
#[no_mangle]
pub unsafe extern "C" fn lnb_layer_norm_backward(call: *const LayerNorm) -> c_int {
    guarded(&*call, |call| unsafe {
        if call.dtype == LNB_F32 {
            kernel::backward::<f32>(call)
        } else {
            kernel::backward::<f64>(call)
        }
    })
}

/// Backward adds dgamma and dbeta up in blocks of rows, and needs one row for each of them.
///
/// # Safety
/// See `lnb_layer_norm_forward`.
#[no_mangle]
pub unsafe extern "C" fn lnb_layer_norm_workspace(call: *const LayerNorm, backward: c_int) -> i64 {
    let item = if (*call).dtype == LNB_F64 { 8 } else { 4 };
    if backward != 0 {
        2 * (*call).cols * item
    } else {
        0
    }
}
