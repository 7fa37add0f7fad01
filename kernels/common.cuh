// Words shared by every kernel. No header of CUDA or of the C library is used, so the sources compile
// with NVRTC alone; with CUDA_EMU defined they are C++17, and emu.h supplies what CUDA builds in.
#pragma once
#ifdef CUDA_EMU
#include "emu.h"
#else
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
#define KERNEL extern "C" __global__
#define DEV __device__ __forceinline__
// A member function; g++ gives it the linkage of its class, DEV that of its file.
#define METHOD __device__ __forceinline__
// Shared memory of a block: SHARED(float, tile, [32][33]);
#define SHARED(T, name, dimensions) __shared__ __align__(16) T name dimensions
// The shared memory that a launch asks for.
#define DYN_SMEM(T, name)                                 \
    extern __shared__ __align__(128) unsigned char bytes_of_##name[]; \
    T* name = reinterpret_cast<T*>(bytes_of_##name)
#endif

// Starts copying 16 bytes from global to shared memory, of which `valid` come from there and the rest
// are zeros. Both addresses are multiples of 16.
DEV void copy_async16(void* to, const void* from, int valid) {
#ifdef CUDA_EMU
    emu::copy_start(to, from, 16, valid);
#else
    u32 shared = (u32)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared), "l"(from),
                 "r"(valid)
                 : "memory");
#endif
}

// Ends a group of copies.
DEV void copy_async_commit() {
#ifdef CUDA_EMU
    emu::copy_commit();
#else
    asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

// Waits until at most `left` groups of this thread are unfinished; a barrier must follow before other
// threads' copies are read.
template <int left> DEV void copy_async_wait() {
#ifdef CUDA_EMU
    emu::copy_wait(left);
#else
    asm volatile("cp.async.wait_group %0;\n" ::"n"(left) : "memory");
#endif
}

// The number of this thread in the whole grid, and how many threads the grid has.
DEV i64 grid_thread() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }
DEV i64 grid_threads() { return (i64)gridDim.x * blockDim.x; }

// Writes one number: adds to what is there, or sets it without reading what is there.
DEV void put(float* at, float value, int add) { *at = add ? *at + value : value; }

DEV bool is_nan(float x) { return x != x; }

DEV float warp_sum(float x) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

// The largest number; NaN is passed over.
DEV float warp_max(float x) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

// The sum over a block of at most 1024 threads, in every thread; `shared` holds 32 numbers. The order
// of the additions depends on nothing.
DEV float block_sum(float x, float* shared) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (blockDim.x + 31) >> 5;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0) shared[warp] = x;
    __syncthreads();
    return warp_sum(lane < warps ? shared[lane] : 0.f);
}
