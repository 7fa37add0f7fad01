// Primitives that compute each number from the numbers at its place. One thread takes every
// grid_threads()-th number.
#include "common.cuh"

KERNEL void fill(float* dst, float value, i64 n) {
    for (i64 i = grid_thread(); i < n; i += grid_threads()) dst[i] = value;
}

KERNEL void scale_add(float* dst, const float* src, float alpha, i64 n, int add) {
    for (i64 i = grid_thread(); i < n; i += grid_threads()) put(dst + i, alpha * src[i], add);
}

KERNEL void add_bias(float* y, const float* bias, i64 n, int cols) {
    for (i64 i = grid_thread(); i < n; i += grid_threads()) y[i] += bias[i % cols];
}

KERNEL void relu_forward(float* y, const float* x, i64 n) {
    // NaN is not below 0 and passes through.
    for (i64 i = grid_thread(); i < n; i += grid_threads()) y[i] = x[i] < 0.f ? 0.f : x[i];
}

KERNEL void relu_backward(float* dx, const float* y, const float* dy, i64 n, int add) {
    for (i64 i = grid_thread(); i < n; i += grid_threads())
        put(dx + i, y[i] > 0.f ? dy[i] : 0.f, add);
}

KERNEL void tanh_forward(float* y, const float* x, i64 n) {
    for (i64 i = grid_thread(); i < n; i += grid_threads()) y[i] = tanhf(x[i]);
}

KERNEL void tanh_backward(float* dx, const float* y, const float* dy, i64 n, int add) {
    for (i64 i = grid_thread(); i < n; i += grid_threads())
        put(dx + i, dy[i] * (1.f - y[i] * y[i]), add);
}

// dx = sign * dl * 2 (x - t) / n
KERNEL void mse_backward(
    float* dx, const float* x, const float* t, const float* dl, float sign, i64 n, int add) {
    float scale = sign * dl[0] * 2.f / (float)n;
    for (i64 i = grid_thread(); i < n; i += grid_threads())
        put(dx + i, scale * (x[i] - t[i]), add);
}

// y[i, j] = x[i, j] where keep[j] is not 0, else value; a masked column of x is not looked at.
KERNEL void mask_columns(
    float* y, const float* x, const float* keep, float value, i64 n, int cols, int add) {
    for (i64 i = grid_thread(); i < n; i += grid_threads())
        put(y + i, keep[i % cols] != 0.f ? x[i] : value, add);
}

// y[k, j] = x[index[k], j]; 0 where the index is negative or x has no column j.
KERNEL void gather_rows(
    float* y, const float* x, const float* index, i64 n, int y_cols, int x_cols, int add) {
    for (i64 i = grid_thread(); i < n; i += grid_threads()) {
        i64 row = (i64)index[i / y_cols];
        int j = (int)(i % y_cols);
        put(y + i, row >= 0 && j < x_cols ? x[row * x_cols + j] : 0.f, add);
    }
}
