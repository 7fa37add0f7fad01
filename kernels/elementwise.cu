// Primitives that compute each number from the numbers at its place. The threads of the grid share the
// numbers, four at a time where they lie at multiples of 16 bytes.
#include "common.cuh"

KERNEL void fill(float* dst, float value, i64 n) {
    map_numbers(dst, n, 0, [=] { return value; });
}

KERNEL void scale_add(float* dst, const float* src, float alpha, i64 n, int add) {
    map_numbers(dst, n, add, [=](float x) { return alpha * x; }, src);
}

KERNEL void add_bias(float* y, const float* bias, i64 n, int cols) {
    each_number(0, n, cols % 4 == 0 && in_fours(y, bias), [&](i64 i, auto pack) {
        put(y + i, load<decltype(pack)::width>(bias + i % cols), 1);
    });
}

KERNEL void relu_forward(float* y, const float* x, i64 n) {
    // NaN is not below 0 and passes through.
    map_numbers(y, n, 0, [](float x) { return x < 0.f ? 0.f : x; }, x);
}

KERNEL void relu_backward(float* dx, const float* y, const float* dy, i64 n, int add) {
    map_numbers(dx, n, add, [](float y, float dy) { return y > 0.f ? dy : 0.f; }, y, dy);
}

KERNEL void tanh_forward(float* y, const float* x, i64 n) {
    map_numbers(y, n, 0, [](float x) { return tanhf(x); }, x);
}

KERNEL void tanh_backward(float* dx, const float* y, const float* dy, i64 n, int add) {
    map_numbers(dx, n, add, [](float y, float dy) { return dy * (1.f - y * y); }, y, dy);
}

// dx = sign * dl * 2 (x - t) / n
KERNEL void mse_backward(
    float* dx, const float* x, const float* t, const float* dl, float sign, i64 n, int add) {
    float scale = sign * dl[0] * 2.f / (float)n;
    map_numbers(dx, n, add, [=](float x, float t) { return scale * (x - t); }, x, t);
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
