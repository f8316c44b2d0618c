// The arithmetic, for any floating-point type.
//
// Every sum of n terms is made of about sqrt(n) partial sums of about sqrt(n) terms each: its rounding error grows
// with sqrt(n) instead of n. The variance is taken from x - mean in a second pass, never from mean(x*x) - mean*mean.
#pragma once

#include "lnbench.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace mine {

inline int64_t block_of(int64_t n) {
    int64_t b = 1;
    while (b * b < n) b++;
    return b;
}

// The sum of term(i) over 0 <= i < n.
template <typename T, typename Term>
T sum(int64_t n, Term term) {
    const int64_t block = block_of(n);
    T total = 0;
    for (int64_t start = 0; start < n; start += block) {
        T part = 0;
        for (int64_t i = start; i < std::min(n, start + block); i++) part += term(i);
        total += part;
    }
    return total;
}

template <typename T>
struct Statistics {
    T mean, rstd;

    static Statistics of(const lnb_layer_norm &call, const T *x) {
        const int64_t n = call.cols;
        const T epsilon = static_cast<T>(call.epsilon), count = static_cast<T>(n ? n : 1);
        const T mean = sum<T>(n, [&](int64_t i) { return x[i]; }) / count;
        const T variance = sum<T>(n, [&](int64_t i) { return (x[i] - mean) * (x[i] - mean); }) / count;
        return {mean, 1 / std::sqrt(variance + epsilon)};
    }
};

template <typename T>
void forward(const lnb_layer_norm &call) {
    const auto *gamma = static_cast<const T *>(call.gamma);
    const auto *beta = static_cast<const T *>(call.beta);
    for (int64_t row = 0; row < call.rows; row++) {
        const T *x = static_cast<const T *>(call.x) + row * call.x_row_stride;
        const auto s = Statistics<T>::of(call, x);
        if (call.mean) static_cast<T *>(call.mean)[row] = s.mean;
        if (call.stat) static_cast<T *>(call.stat)[row] = s.rstd;
        if (!call.y) continue;
        T *y = static_cast<T *>(call.y) + row * call.y_row_stride;
        for (int64_t i = 0; i < call.cols; i++)
            y[i] = (x[i] - s.mean) * s.rstd * (gamma ? gamma[i] : 1) + (beta ? beta[i] : 0);
    }
}

// dx of one row: rstd * (g - mean(g) - xhat * mean(g * xhat)) with g = dy * gamma.
template <typename T>
void backward_row(const lnb_layer_norm &call, const T *x, const T *dy, Statistics<T> s, T *dx) {
    const auto *gamma = static_cast<const T *>(call.gamma);
    const T count = static_cast<T>(call.cols);
    const auto g = [&](int64_t i) { return dy[i] * (gamma ? gamma[i] : 1); };
    const auto xhat = [&](int64_t i) { return (x[i] - s.mean) * s.rstd; };
    const T mean_g = sum<T>(call.cols, g) / count;
    const T mean_gx = sum<T>(call.cols, [&](int64_t i) { return g(i) * xhat(i); }) / count;
    for (int64_t i = 0; i < call.cols; i++) dx[i] = s.rstd * (g(i) - mean_g - xhat(i) * mean_gx);
}

// Adds the partial sums of a block of rows to the total, if it is wanted, and clears them.
template <typename T>
void flush(T *part, void *total, int64_t n) {
    if (total)
        for (int64_t i = 0; i < n; i++) static_cast<T *>(total)[i] += part[i];
    std::fill_n(part, n, T{0});
}

template <typename T>
void backward(const lnb_layer_norm &call) {
    const int64_t n = call.cols, block = block_of(call.rows);
    auto *part_gamma = static_cast<T *>(call.workspace);
    auto *part_beta = part_gamma + n;
    if (n == 0) return;
    std::fill_n(part_gamma, 2 * n, T{0});
    if (call.dgamma) std::fill_n(static_cast<T *>(call.dgamma), n, T{0});
    if (call.dbeta) std::fill_n(static_cast<T *>(call.dbeta), n, T{0});
    for (int64_t row = 0; row < call.rows; row++) {
        const T *x = static_cast<const T *>(call.x) + row * call.x_row_stride;
        const T *dy = static_cast<const T *>(call.dy) + row * call.dy_row_stride;
        const auto s = call.mean && call.stat
            ? Statistics<T>{static_cast<const T *>(call.mean)[row], static_cast<const T *>(call.stat)[row]}
            : Statistics<T>::of(call, x);
        for (int64_t i = 0; i < n; i++) {
            part_gamma[i] += dy[i] * ((x[i] - s.mean) * s.rstd);
            part_beta[i] += dy[i];
        }
        if (call.dx) backward_row(call, x, dy, s, static_cast<T *>(call.dx) + row * call.dx_row_stride);
        if ((row + 1) % block == 0 || row + 1 == call.rows) {
            flush(part_gamma, call.dgamma, n);
            flush(part_beta, call.dbeta, n);
        }
    }
}

}  // namespace mine
