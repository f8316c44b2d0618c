//! The arithmetic, for f32 and f64.
//!
//! Every sum of n terms is made of about sqrt(n) partial sums of about sqrt(n) terms each: its rounding error grows
//! with sqrt(n) instead of n. The variance is taken from x - mean in a second pass, never from mean(x*x) - mean*mean.

use crate::contract::LayerNorm;
use std::ffi::c_void;
use std::ops::{Add, AddAssign, Div, Mul, Sub};
use std::panic::RefUnwindSafe;
use std::slice::{from_raw_parts, from_raw_parts_mut};

pub trait Real:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + AddAssign + RefUnwindSafe
{
    const ZERO: Self;
    const ONE: Self;
    fn of(value: f64) -> Self;
    fn sqrt(self) -> Self;
}

macro_rules! real {
    ($t:ty) => {
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            fn of(value: f64) -> Self {
                value as $t
            }
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
        }
    };
}
real!(f32);
real!(f64);

fn block_of(n: usize) -> usize {
    (n as f64).sqrt().ceil().max(1.0) as usize
}

/// The sum of `term(i)` over 0 <= i < n.
fn sum<T: Real>(n: usize, term: impl Fn(usize) -> T) -> T {
    let block = block_of(n);
    let mut total = T::ZERO;
    for start in (0..n).step_by(block) {
        let mut part = T::ZERO;
        for i in start..n.min(start + block) {
            part += term(i);
        }
        total += part;
    }
    total
}

/// `len` elements at `data`; nothing where there is no array.
unsafe fn line<'a, T>(data: *const c_void, len: usize) -> Option<&'a [T]> {
    (!data.is_null()).then(|| from_raw_parts(data as *const T, len))
}

unsafe fn line_mut<'a, T>(data: *mut c_void, len: usize) -> Option<&'a mut [T]> {
    (!data.is_null()).then(|| from_raw_parts_mut(data as *mut T, len))
}

unsafe fn row_of<'a, T>(data: *const c_void, row: usize, stride: i64, len: usize) -> &'a [T] {
    from_raw_parts((data as *const T).offset(row as isize * stride as isize), len)
}

unsafe fn row_of_mut<'a, T>(data: *mut c_void, row: usize, stride: i64, len: usize) -> &'a mut [T] {
    from_raw_parts_mut((data as *mut T).offset(row as isize * stride as isize), len)
}

/// (mean, rstd) of one row.
fn statistics<T: Real>(x: &[T], epsilon: f64) -> (T, T) {
    let n = x.len();
    let count = T::of(n.max(1) as f64);
    let mean = sum(n, |i| x[i]) / count;
    let variance = sum(n, |i| (x[i] - mean) * (x[i] - mean)) / count;
    (mean, T::ONE / (variance + T::of(epsilon)).sqrt())
}

/// # Safety
/// The arrays of `call` must be as lnbench.h describes them, with elements of type T.
pub unsafe fn forward<T: Real>(call: &LayerNorm) {
    let (rows, cols) = (call.rows as usize, call.cols as usize);
    let (gamma, beta) = (line::<T>(call.gamma, cols), line::<T>(call.beta, cols));
    for row in 0..rows {
        let x: &[T] = row_of(call.x, row, call.x_row_stride, cols);
        let (mean, rstd) = statistics(x, call.epsilon);
        if let Some(saved) = line_mut::<T>(call.mean, rows) {
            saved[row] = mean;
        }
        if let Some(saved) = line_mut::<T>(call.stat, rows) {
            saved[row] = rstd;
        }
        if call.y.is_null() {
            continue;
        }
        let y: &mut [T] = row_of_mut(call.y, row, call.y_row_stride, cols);
        for i in 0..cols {
            let xhat = (x[i] - mean) * rstd;
            y[i] = xhat * gamma.map_or(T::ONE, |g| g[i]) + beta.map_or(T::ZERO, |b| b[i]);
        }
    }
}

/// dx of one row: rstd * (g - mean(g) - xhat * mean(g * xhat)) with g = dy * gamma.
fn backward_row<T: Real>(x: &[T], dy: &[T], gamma: Option<&[T]>, mean: T, rstd: T, dx: &mut [T]) {
    let count = T::of(x.len() as f64);
    let g = |i: usize| dy[i] * gamma.map_or(T::ONE, |g| g[i]);
    let xhat = |i: usize| (x[i] - mean) * rstd;
    let mean_g = sum(x.len(), g) / count;
    let mean_gx = sum(x.len(), |i| g(i) * xhat(i)) / count;
    for i in 0..x.len() {
        dx[i] = rstd * (g(i) - mean_g - xhat(i) * mean_gx);
    }
}

/// Adds the partial sums of a block of rows to the total, if it is wanted, and clears them.
fn flush<T: Real>(part: &mut [T], total: Option<&mut [T]>) {
    if let Some(total) = total {
        for (t, p) in total.iter_mut().zip(part.iter()) {
            *t += *p;
        }
    }
    part.fill(T::ZERO);
}

/// # Safety
/// The arrays of `call` must be as lnbench.h describes them, with elements of type T.
pub unsafe fn backward<T: Real>(call: &LayerNorm) {
    let (rows, cols) = (call.rows as usize, call.cols as usize);
    if cols == 0 {
        return;
    }
    let gamma = line::<T>(call.gamma, cols);
    let (part_gamma, part_beta) = from_raw_parts_mut(call.workspace as *mut T, 2 * cols).split_at_mut(cols);
    flush(part_gamma, None);
    flush(part_beta, None);
    for total in [call.dgamma, call.dbeta] {
        if let Some(total) = line_mut::<T>(total, cols) {
            total.fill(T::ZERO);
        }
    }
    let block = block_of(rows);
    for row in 0..rows {
        let x: &[T] = row_of(call.x, row, call.x_row_stride, cols);
        let dy: &[T] = row_of(call.dy, row, call.dy_row_stride, cols);
        let (mean, rstd) = match (line::<T>(call.mean, rows), line::<T>(call.stat, rows)) {
            (Some(mean), Some(rstd)) => (mean[row], rstd[row]),
            _ => statistics(x, call.epsilon),
        };
        for i in 0..cols {
            part_gamma[i] += dy[i] * ((x[i] - mean) * rstd);
            part_beta[i] += dy[i];
        }
        if !call.dx.is_null() {
            backward_row(x, dy, gamma, mean, rstd, row_of_mut(call.dx, row, call.dx_row_stride, cols));
        }
        if (row + 1) % block == 0 || row + 1 == rows {
            flush(part_gamma, line_mut(call.dgamma, cols));
            flush(part_beta, line_mut(call.dbeta, cols));
        }
    }
}
