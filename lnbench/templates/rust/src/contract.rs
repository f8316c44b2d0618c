//! lnbench.h in Rust: the struct of one call, and the constants this backend uses.

use std::ffi::{c_int, c_void};

pub const LNB_F32: i32 = 0;
pub const LNB_F64: i32 = 1;
pub const LNB_OK: c_int = 0;
pub const LNB_UNSUPPORTED: c_int = 1;
pub const LNB_INVALID: c_int = 2;
pub const LNB_RSTD: i32 = 0;

/// `lnb_layer_norm`, field by field.
#[repr(C)]
pub struct LayerNorm {
    pub size: u32,
    pub dtype: i32,
    pub affine_dtype: i32,
    pub stat_dtype: i32,
    pub stat_kind: i32,
    pub threads: i32,
    pub epsilon: f64,
    pub rows: i64,
    pub cols: i64,
    pub x_row_stride: i64,
    pub y_row_stride: i64,
    pub dy_row_stride: i64,
    pub dx_row_stride: i64,
    pub x: *const c_void,
    pub gamma: *const c_void,
    pub beta: *const c_void,
    pub dy: *const c_void,
    pub y: *mut c_void,
    pub mean: *mut c_void,
    pub stat: *mut c_void,
    pub dx: *mut c_void,
    pub dgamma: *mut c_void,
    pub dbeta: *mut c_void,
    pub workspace: *mut c_void,
}
