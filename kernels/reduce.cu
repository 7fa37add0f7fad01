// Sums. Every sum is taken in an order that depends on the sizes only.
#include "common.cuh"

// mean (x - t)^2 in one block of 1024 threads; 0 / 0 for no numbers.
KERNEL void __launch_bounds__(1024) mse_forward(
    float* loss, const float* x, const float* t, i64 n) {
    SHARED(float, shared, [32]);
    float sum = 0.f;
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
        float d = x[i] - t[i];
        sum += d * d;
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) loss[0] = sum / (float)n;
}

// Column sums of rows x cols: block (32, 32) of the grid (ceil(cols / 32), splits). Each split writes
// the sums of its rows to a line of `partial`; a single split writes to dst.
KERNEL void __launch_bounds__(1024) sum_rows(
    float* dst, float* partial, const float* src, i64 rows, int cols, int add) {
    SHARED(float, sums, [32][33]);
    int col = blockIdx.x * 32 + threadIdx.x;
    i64 share = (rows + gridDim.y - 1) / gridDim.y, first = share * blockIdx.y;
    i64 last = first + share < rows ? first + share : rows;
    float sum = 0.f;
    if (col < cols)
        for (i64 row = first + threadIdx.y; row < last; row += 32) sum += src[row * cols + col];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    // Transposed: a warp adds the 32 sums of one column.
    sum = warp_sum(sums[threadIdx.x][threadIdx.y]);
    col = blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && col < cols) {
        if (gridDim.y == 1) put(dst + col, sum, add);
        else partial[(i64)blockIdx.y * cols + col] = sum;
    }
}

// dst = the sum of `splits` lines of n numbers.
KERNEL void sum_splits(float* dst, const float* partial, int splits, i64 n, int add) {
    for (i64 i = grid_thread(); i < n; i += grid_threads()) {
        float sum = 0.f;
        for (int s = 0; s < splits; s++) sum += partial[s * n + i];
        put(dst + i, sum, add);
    }
}
