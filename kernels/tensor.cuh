// The tiled product on the tensor cores: operands are rounded to TF32 or bfloat16, sums are f32.
//
// Numbers go from global to shared memory in fours, asynchronously, into a ring of stages. So four that are
// neighbours must start at a multiple of 16 bytes and be all there or all not: the host takes this product
// only where the dimension that lies along memory is a multiple of 4.
#pragma once
#include "product.cuh"

const int ROWS = 128, COLS = 64;  // of C in a block
const int STEP = 16;              // terms in a stage
const int STAGES = 3;

// Multiplication in TF32: 8 terms at a time.
struct Tf32 {
    static const int TERMS = 8;
    // Word r of a fragment, from the number at term k0 + t (+ 4).
    template <class At> METHOD static u32 word(At at, int t, int half) {
        return to_tf32(at(t + half * 4));
    }
    METHOD static void mma(float c[4], const u32 a[4], const u32 b[2]) { mma_tf32(c, a, b); }
};

// Multiplication in bfloat16: 16 terms at a time, two in a word.
struct Bf16 {
    static const int TERMS = 16;
    template <class At> METHOD static u32 word(At at, int t, int half) {
        return to_bf16(at(2 * t + half * 8), at(2 * t + 1 + half * 8));
    }
    METHOD static void mma(float c[4], const u32 a[4], const u32 b[2]) { mma_bf16(c, a, b); }
};

// One operand's part of a stage. Rows of shared memory are lines where memory lies along them, else
// depths; their padding keeps the lanes of a fragment in different banks.
template <class Load, int LINES> struct Ring {
    static const int STRIDE = Load::DEEP ? STEP + 4 : LINES + 8;
    static const int SIZE = (Load::DEEP ? LINES : STEP) * STRIDE;
    static const int QUADS = LINES * STEP / 4 / THREADS;  // of a thread

    typename Load::Line lines[QUADS];
    bool inside[QUADS];

    // The first line and depth of quad i of this thread.
    METHOD static int local_line(int i) {
        int q = threadIdx.x + i * THREADS;
        return Load::DEEP ? q / (STEP / 4) : q % (LINES / 4) * 4;
    }
    METHOD static int local_depth(int i) {
        int q = threadIdx.x + i * THREADS;
        return Load::DEEP ? q % (STEP / 4) * 4 : q / (LINES / 4);
    }
    METHOD static int place(int line, int depth) {
        return Load::DEEP ? line * STRIDE + depth : depth * STRIDE + line;
    }
    METHOD void start(const Load& load, int first_line, int lines_in_all) {
#pragma unroll
        for (int i = 0; i < QUADS; i++) {
            int line = first_line + local_line(i);
            inside[i] = line < lines_in_all;
            lines[i] = load.line(inside[i] ? line : 0);
        }
    }
    // Starts copying the stage that begins at depth k0; zeros beyond `end`. `any` is some address that
    // nothing is read from.
    METHOD void copy(float* stage, const Load& load, const float* any, int k0, int end) const {
#pragma unroll
        for (int i = 0; i < QUADS; i++) {
            int k = k0 + local_depth(i);
            const float* from = inside[i] && k < end ? load.at(lines[i], load.depth(k)) : nullptr;
            copy_async16(stage + place(local_line(i), local_depth(i)), from ? from : any, from ? 16 : 0);
        }
    }
};

// As `product` of product.cuh, with the same grid of larger tiles.
template <class Math, class LoadA, class LoadB>
DEV void tensor_product(
    float* c, float* partial, u32* done, const LoadA& load_a, const LoadB& load_b, Extent e, int add) {
    typedef Ring<LoadA, ROWS> RingA;
    typedef Ring<LoadB, COLS> RingB;
    SHARED(float, a, [STAGES][RingA::SIZE]);
    SHARED(float, b, [STAGES][RingB::SIZE]);
    int row0 = blockIdx.x * ROWS, col0 = blockIdx.y * COLS;
    int steps = (e.k + STEP - 1) / STEP, share = (steps + gridDim.z - 1) / gridDim.z * STEP;
    int begin = share * blockIdx.z, end = begin + share < e.k ? begin + share : e.k;

    RingA ring_a;
    RingB ring_b;
    ring_a.start(load_a, row0, e.m);
    ring_b.start(load_b, col0, e.n);
    auto fetch = [&](int stage, int k0) {
        if (k0 < end) {
            ring_a.copy(a[stage], load_a, c, k0, end);
            ring_b.copy(b[stage], load_b, c, k0, end);
        }
        // A group for each step, empty or not, so that counting them is counting steps.
        copy_async_commit();
    };

    // Eight warps, four along the rows and two along the columns, each with 2 x 4 tiles of 16 x 8.
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    int warp_row = warp % 4 * 32, warp_col = warp / 4 * 32;
    float sum[2][4][4];
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int r = 0; r < 4; r++) sum[i][j][r] = 0.f;

#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) fetch(s, begin + s * STEP);
    int stage = 0;
    for (int k0 = begin; k0 < end; k0 += STEP) {
        copy_async_wait<STAGES - 2>();
        // Everyone's copies are there, and everyone has left the stage that is overwritten now.
        __syncthreads();
        fetch((stage + STAGES - 1) % STAGES, k0 + (STAGES - 1) * STEP);
#pragma unroll
        for (int k = 0; k < STEP; k += Math::TERMS) {
            u32 left[2][4], right[4][2];
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int r = 0; r < 4; r++) {
                    int row = warp_row + i * 16 + g + r % 2 * 8;
                    auto at = [&](int term) { return a[stage][RingA::place(row, k + term)]; };
                    left[i][r] = Math::word(at, t, r / 2);
                }
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    int col = warp_col + j * 8 + g;
                    auto at = [&](int term) { return b[stage][RingB::place(col, k + term)]; };
                    right[j][r] = Math::word(at, t, r);
                }
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) Math::mma(sum[i][j], left[i], right[j]);
        }
        stage = (stage + 1) % STAGES;
    }

    bool whole = gridDim.z == 1;
    float* out = whole ? c : partial + (i64)e.m * e.n * blockIdx.z;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int r = 0; r < 4; r++) {
                int row = row0 + warp_row + i * 16 + g + r / 2 * 8;
                int col = col0 + warp_col + j * 8 + 2 * t + r % 2;
                if (row < e.m && col < e.n)
                    put(out + (i64)row * e.n + col, sum[i][j][r], whole && add);
            }
    if (!whole) add_splits(c, partial, done, e, row0, col0, ROWS, COLS, add);
}
