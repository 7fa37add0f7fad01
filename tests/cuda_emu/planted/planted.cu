// Kernels with the mistakes that are worst on a real GPU, and one without: see tests/program/cuda.rs.
#include "common.cuh"

// 64 numbers reversed through shared memory; `barrier` is what the correct version has.
DEV void reverse(float* x, bool barrier) {
    SHARED(float, shared, [64]);
    shared[threadIdx.x] = x[threadIdx.x];
    if (barrier) __syncthreads();
    x[threadIdx.x] = shared[63 - threadIdx.x];
}
KERNEL void correct(float* x) { reverse(x, true); }
KERNEL void missing_barrier(float* x) { reverse(x, false); }

KERNEL void never_written(float* x) {
    SHARED(float, shared, [64]);
    if (threadIdx.x < 32) shared[threadIdx.x] = 1.f;
    __syncthreads();
    x[threadIdx.x] = shared[threadIdx.x];
}

KERNEL void read_behind(float* x) { x[0] = x[threadIdx.x + 1]; }
KERNEL void write_behind(float* x) { x[threadIdx.x + 1] = 0.f; }

KERNEL void divergent_barrier(float* x) {
    if (threadIdx.x < 16) __syncthreads();
    else x[threadIdx.x] = warp_sum(x[threadIdx.x]);
}

KERNEL void lane_outside_of_mask(float* x) {
    x[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, x[threadIdx.x], 1);
}

KERNEL void behind_static_shared(float* x) {
    SHARED(float, shared, [64]);
    shared[threadIdx.x + 8] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = shared[threadIdx.x + 8];
}

KERNEL void behind_dynamic_shared(float* x) {
    DYN_SMEM(float, shared);
    shared[threadIdx.x + 8] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = shared[threadIdx.x + 8];
}

// 64 numbers through two asynchronous copies; `left` groups may be unfinished when they are read.
template <int left> DEV void copy(float* x) {
    SHARED(float, shared, [64]);
    int t = threadIdx.x;
    if (t < 8) copy_async16(&shared[t * 4], x + t * 4, 16);
    copy_async_commit();
    if (t < 8) copy_async16(&shared[32 + t * 4], x + 32 + t * 4, 16);
    copy_async_commit();
    copy_async_wait<left>();
    __syncthreads();
    x[t] = shared[63 - t];
}
KERNEL void correct_copy(float* x) { copy<0>(x); }
KERNEL void wrong_wait_count(float* x) { copy<1>(x); }
