// What CUDA builds into the language, as C++17 for g++, so that the files of kernels/ run on the CPU:
// one block at a time, every thread of it a fiber, barriers and warp operations points where fibers
// change (emu.cpp). Included by common.cuh when CUDA_EMU is defined.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

typedef uint32_t u32;
typedef unsigned long long u64;
typedef long long i64;

#define KERNEL extern "C" __global__
#define DEV static inline
#define METHOD inline
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
// The address of the key, of which each instance of a template has its own, tells the arrays apart.
#define SHARED(T, name, dimensions)   \
    typedef T name##_type dimensions; \
    static char name##_key;           \
    name##_type& name = *(name##_type*)emu::shared(&name##_key, sizeof(name##_type))
#define DYN_SMEM(T, name) T* name = reinterpret_cast<T*>(emu::dynamic_shared)

namespace emu {

struct Dim3 {
    unsigned x, y, z;
};

// A copy between global and shared memory that was asked for and not yet waited for.
struct Copy {
    unsigned char* to;
    const void* from;
    int bytes, valid;
};

const int MAX_COPIES = 128;

struct Thread {
    void* stack;
    Dim3 index;
    int number, lane, warp, state;
    Copy copies[MAX_COPIES];
    int copies_open, groups[MAX_COPIES], groups_open;
};

extern Thread* current;
extern Dim3 block_index, block_size, grid_size;
extern unsigned char dynamic_shared[];

// Ends the process, naming kernel, block and thread.
[[noreturn]] void fail(const char* format, ...);

void barrier();

// The shared memory of the current block that belongs to this key.
void* shared(const void* key, size_t bytes);

// Reads what each taking-part lane brought (null for the others) and writes what each gets.
typedef void (*Collective)(const void* const* in, void* const* out);

// One warp operation; all lanes of `mask` must come with the same `name` and mask.
void collect(u32 mask, const char* name, const void* in, void* out, Collective f);

// Copies that a kernel starts happen only when it waits for them: one that forgets to wait reads what was
// there before. `valid` bytes are copied, zeros make up the rest.
void copy_start(void* to, const void* from, int bytes, int valid);
void copy_commit();
void copy_wait(int groups_left);

template <class T> struct Exchange {
    T value;
    int source;
};

template <class T> T shuffle(u32 mask, const char* name, T value, int source) {
    static_assert(std::is_trivially_copyable<T>::value, "a register");
    Exchange<T> in = {value, source};
    T out = value;
    collect(mask, name, &in, &out, [](const void* const* in, void* const* out) {
        for (int lane = 0; lane < 32; lane++) {
            if (!in[lane]) continue;
            int from = ((const Exchange<T>*)in[lane])->source;
            // A source that takes no part gives an unspecified value; poison where that can be seen.
            if (in[from]) *(T*)out[lane] = ((const Exchange<T>*)in[from])->value;
            else memset(out[lane], 0xff, sizeof(T));
        }
    });
    return out;
}

inline u32 bits_of(float x) {
    u32 bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline float float_of(u32 bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
// To 10 bits of fraction, ties away from 0; infinities and NaN stay what they are.
inline u32 round_tf32(float x) {
    u32 bits = bits_of(x);
    return (bits & 0x7f800000) == 0x7f800000 ? bits : (bits + 0x1000) & ~0x1fffu;
}
// To 7 bits of fraction, ties to even.
inline u32 round_bf16(float x) {
    u32 bits = bits_of(x);
    if (x != x) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

struct MmaOperands {
    const u32 *a, *b;
    const float* c;
};

// A tile of 16 x 8 over K terms, by the layouts that the PTX manual gives; c is read and written.
template <int K> void mma(const char* name, float* c, const u32* a, const u32* b) {
    MmaOperands in = {a, b, c};
    float out[4];
    collect(~0u, name, &in, out, [](const void* const* in, void* const* out) {
        float left[16][K], right[K][8], sum[16][8];
        const int each = K / 8;  // numbers in a word
        auto number = [](u32 word, int i) {
            return float_of(each == 1 ? word & ~0x1fffu : word >> 16 * i << 16);
        };
        for (int lane = 0; lane < 32; lane++) {
            if (!in[lane]) fail("mma with lane %d missing", lane);
            const MmaOperands& m = *(const MmaOperands*)in[lane];
            int g = lane / 4, t = lane % 4;
            for (int i = 0; i < each; i++) {
                for (int r = 0; r < 4; r++)
                    left[g + r % 2 * 8][each * t + i + r / 2 * 4 * each] = number(m.a[r], i);
                for (int r = 0; r < 2; r++) right[each * t + i + r * 4 * each][g] = number(m.b[r], i);
            }
            for (int r = 0; r < 4; r++) sum[g + r / 2 * 8][2 * t + r % 2] = m.c[r];
        }
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++)
                for (int k = 0; k < K; k++) sum[i][j] += left[i][k] * right[k][j];
        for (int lane = 0; lane < 32; lane++)
            for (int r = 0; r < 4; r++)
                ((float*)out[lane])[r] = sum[lane / 4 + r / 2 * 8][lane % 4 * 2 + r % 2];
    });
    memcpy(c, out, sizeof out);
}

// A kernel under its name, called with pointers to its arguments.
struct Kernel {
    const char* name;
    void (*run)(void** args);
    int (*sizes)(int* bytes);
};

void add(Kernel kernel);
const Kernel* find(const char* name);
// False if the driver would refuse the geometry.
bool launch(const Kernel* kernel, Dim3 grid, Dim3 block, unsigned shared, void** args, unsigned order);

template <class... A, size_t... I>
void call(void (*f)(A...), void** args, std::index_sequence<I...>) {
    f(*(std::remove_reference_t<A>*)args[I]...);
}
template <class... A> void call(void (*f)(A...), void** args) {
    call(f, args, std::index_sequence_for<A...>{});
}
template <class... A> int sizes(void (*)(A...), int* bytes) {
    int n = 0;
    ((bytes[n++] = (int)sizeof(A)), ...);
    return n;
}

}  // namespace emu

#define EMU_REGISTER(kernel)                                        \
    namespace {                                                     \
    struct Register_##kernel {                                      \
        Register_##kernel() {                                       \
            emu::add({#kernel, [](void** p) { emu::call(kernel, p); }, \
                      [](int* bytes) { return emu::sizes(kernel, bytes); }}); \
        }                                                           \
    } register_##kernel;                                            \
    }

#define threadIdx (emu::current->index)
#define blockIdx emu::block_index
#define blockDim emu::block_size
#define gridDim emu::grid_size
#define __syncthreads emu::barrier

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

inline void __syncwarp(u32 mask = ~0u) {
    emu::collect(mask, "__syncwarp", "", nullptr, [](const void* const*, void* const*) {});
}
template <class T> T __shfl_sync(u32 mask, T value, int source) {
    return emu::shuffle(mask, "__shfl_sync", value, source & 31);
}
template <class T> T __shfl_xor_sync(u32 mask, T value, int bits) {
    return emu::shuffle(mask, "__shfl_xor_sync", value, (emu::current->lane ^ bits) & 31);
}
template <class T> T __shfl_down_sync(u32 mask, T value, int by) {
    int from = emu::current->lane + by;
    return emu::shuffle(mask, "__shfl_down_sync", value, from < 32 ? from : emu::current->lane);
}
inline u32 __ballot_sync(u32 mask, int yes) {
    u32 result = 0;
    emu::collect(mask, "__ballot_sync", &yes, &result, [](const void* const* in, void* const* out) {
        u32 bits = 0;
        for (int lane = 0; lane < 32; lane++)
            if (in[lane] && *(const int*)in[lane]) bits |= 1u << lane;
        for (int lane = 0; lane < 32; lane++)
            if (in[lane]) *(u32*)out[lane] = bits;
    });
    return result;
}

// Fibers change at barriers and warp operations only, so plain memory operations are atomic.
template <class T> T atomicAdd(T* at, T value) {
    T before = *at;
    *at = before + value;
    return before;
}
template <class T> T __ldcg(const T* at) { return *at; }
inline void __threadfence() {}

inline float __int_as_float(int bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline int __float_as_int(float x) {
    int bits;
    memcpy(&bits, &x, 4);
    return bits;
}
