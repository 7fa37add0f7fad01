// Row order (one sample after the other, channels slowest) to channels last, and back: for each
// sample the transpose of a matrix.
#include "common.cuh"

// y[sample][j][i] = x[sample][i][j] for matrices of rows x cols. Block (32, 8); the grid covers the
// columns, the rows and the samples, each in steps of its size.
KERNEL void __launch_bounds__(256) transpose(
    float* y, const float* x, int samples, int rows, int cols, int add) {
    SHARED(float, tile, [32][33]);
    for (i64 sample = blockIdx.z; sample < samples; sample += gridDim.z) {
        const float* from = x + sample * rows * cols;
        float* to = y + sample * rows * cols;
        for (int top = blockIdx.y * 32; top < rows; top += gridDim.y * 32) {
            int left = blockIdx.x * 32, j = left + threadIdx.x;
            for (int r = threadIdx.y; r < 32; r += 8)
                if (top + r < rows && j < cols) tile[r][threadIdx.x] = from[(i64)(top + r) * cols + j];
            __syncthreads();
            int i = top + threadIdx.x;
            for (int c = threadIdx.y; c < 32; c += 8)
                if (left + c < cols && i < rows)
                    put(to + (i64)(left + c) * rows + i, tile[threadIdx.x][c], add);
            // The next tile overwrites this one.
            __syncthreads();
        }
    }
}
