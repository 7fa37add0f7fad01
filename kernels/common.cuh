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

// The nearest number that the tensor cores take as TF32 (10 bits of fraction; ties away from 0).
DEV u32 to_tf32(float x) {
#ifdef CUDA_EMU
    return emu::round_tf32(x);
#else
    u32 bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
#endif
}

// Two numbers rounded to bfloat16, the first in the lower half.
DEV u32 to_bf16(float low, float high) {
#ifdef CUDA_EMU
    return emu::round_bf16(low) | emu::round_bf16(high) << 16;
#else
    u32 bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
#endif
}

// c += a b on the tensor cores, for a tile of 16 x 8 over 8 terms in TF32. Lane l holds, with g = l / 4 and
// t = l % 4: a at (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4); b at (t, g), (t + 4, g); c at (g, 2t),
// (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
DEV void mma_tf32(float c[4], const u32 a[4], const u32 b[2]) {
#ifdef CUDA_EMU
    emu::mma<8>("mma tf32", c, a, b);
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// The same over 16 terms in bfloat16: each word holds two neighbouring terms, at 2t where TF32 has t and at
// 2t + 8 where it has t + 4.
DEV void mma_bf16(float c[4], const u32 a[4], const u32 b[2]) {
#ifdef CUDA_EMU
    emu::mma<16>("mma bf16", c, a, b);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// The number of this thread in the whole grid, and how many threads the grid has.
DEV i64 grid_thread() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }
DEV i64 grid_threads() { return (i64)gridDim.x * blockDim.x; }

// Writes one number: adds to what is there, or sets it without reading what is there.
DEV void put(float* at, float value, int add) { *at = add ? *at + value : value; }

// W numbers that lie together, at a multiple of their size: four move with one instruction.
template <int W> struct alignas(4 * W) Pack {
    static const int width = W;
    float v[W];
};

template <int W> DEV Pack<W> load(const float* at) { return *reinterpret_cast<const Pack<W>*>(at); }

template <int W> DEV void put(float* at, Pack<W> values, int add) {
    if (add) {
        Pack<W> before = load<W>(at);
#pragma unroll
        for (int e = 0; e < W; e++) values.v[e] = before.v[e] + values.v[e];
    }
    *reinterpret_cast<Pack<W>*>(at) = values;
}

// Whether every address is a multiple of 16 bytes; a null pointer is.
DEV bool in_fours() { return true; }
template <class... P> DEV bool in_fours(const float* first, P... rest) {
    return ((u64)first & 15) == 0 && in_fours(rest...);
}

// Calls f(i, pack) for the numbers first .. last, which this thread shares with the grid: four at a time
// if `fours`, where f may use Pack<4> at multiples of 4, and the rest one by one.
template <class F> DEV void each_number(i64 first, i64 last, bool fours, F f) {
    i64 done = first;
    if (fours) {
        i64 n = (last - first) / 4;
        for (i64 i = grid_thread(); i < n; i += grid_threads()) f(first + 4 * i, Pack<4>());
        done += 4 * n;
    }
    for (i64 i = done + grid_thread(); i < last; i += grid_threads()) f(i, Pack<1>());
}

// y[i] = f(x[i]...) for n numbers, set or added.
template <class F, class... X> DEV void map_numbers(float* y, i64 n, int add, F f, const X*... x) {
    each_number(0, n, in_fours(y, x...), [&](i64 i, auto pack) {
        const int W = decltype(pack)::width;
        auto one = [&](const auto&... loaded) {
#pragma unroll
            for (int e = 0; e < W; e++) pack.v[e] = f(loaded.v[e]...);
        };
        one(load<W>(x + i)...);
        put(y + i, pack, add);
    });
}

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
