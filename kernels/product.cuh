// The tiled product C = A B behind matrix products and convolutions. What A and B are is said by two
// loaders; a row of A or a column of B is called a line, its k-th number has depth k:
//
//   Line line(int i)            what is worth computing once for a line
//   Depth depth(int k)          what is worth computing once for a depth
//   const float* at(Line, Depth)   where the number there is; null for a zero that is not stored
//   static const bool DEEP      numbers of one line are neighbours in memory (rather than those of
//                               one depth), which decides how a warp is laid over a tile
#pragma once
#include "common.cuh"

struct Extent {
    int m, n, k;
};

const int TILE = 64;    // rows and columns of C in a block
const int DEPTH = 16;   // terms between two barriers
const int THREADS = 256;
const int PER_THREAD = TILE * DEPTH / THREADS;

// This thread's share of one operand of the tile: four numbers, at fixed lines or at fixed depths.
template <class Load> struct Share {
    typename Load::Line lines[Load::DEEP ? PER_THREAD : 1];
    bool inside[Load::DEEP ? PER_THREAD : 1];
    float values[PER_THREAD];

    static METHOD int local_line(int i) {
        int t = threadIdx.x;
        return Load::DEEP ? t / DEPTH + i * (THREADS / DEPTH) : t % TILE;
    }
    static METHOD int local_depth(int i) {
        int t = threadIdx.x;
        return Load::DEEP ? t % DEPTH : t / TILE + i * (THREADS / TILE);
    }
    METHOD void start(const Load& load, int first_line, int lines_in_all) {
#pragma unroll
        for (int i = 0; i < (Load::DEEP ? PER_THREAD : 1); i++) {
            int line = first_line + local_line(i);
            inside[i] = line < lines_in_all;
            lines[i] = load.line(inside[i] ? line : 0);
        }
    }
    // Reads the share of the tile that begins at depth k0; zeros beyond `end`.
    METHOD void read(const Load& load, int k0, int end) {
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++) {
            int line = Load::DEEP ? i : 0, k = k0 + local_depth(i);
            const float* at = inside[line] && k < end ? load.at(lines[line], load.depth(k)) : nullptr;
            values[i] = at ? *at : 0.f;
        }
    }
    METHOD void write(float (*tile)[TILE + 4]) const {
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++) tile[local_depth(i)][local_line(i)] = values[i];
    }
};

// The end of a product whose terms were divided among the blocks of gridDim.z: each has written its tile
// (rows x cols, from row0 and col0) to its part of `partial`, and the last one to come adds the parts up in
// order, so that the result does not depend on which one that is. `done` holds a zero for each tile and is
// zero again afterwards.
DEV void add_splits(
    float* c, const float* partial, u32* done, const Extent& e, int row0, int col0, int rows,
    int cols, int add) {
    SHARED(u32, finished, );
    // Publish the tile before counting it.
    __threadfence();
    __syncthreads();
    u32* counter = done + blockIdx.y * gridDim.x + blockIdx.x;
    if (threadIdx.x == 0) finished = atomicAdd(counter, 1u);
    __syncthreads();
    if (finished != gridDim.z - 1) return;
    __threadfence();
    i64 size = (i64)e.m * e.n;
    for (int at = threadIdx.x; at < rows * cols; at += THREADS) {
        int row = row0 + at / cols, col = col0 + at % cols;
        if (row >= e.m || col >= e.n) continue;
        i64 i = (i64)row * e.n + col;
        float total = 0.f;
        for (int s = 0; s < gridDim.z; s++) total += __ldcg(partial + s * size + i);
        put(c + i, total, add);
    }
    if (threadIdx.x == 0) *counter = 0;
}

// One block computes one tile of C over one range of depths: grid (rows, columns, splits) of tiles.
// In f32, and without any condition on sizes and addresses.
template <class LoadA, class LoadB>
DEV void product(
    float* c, float* partial, u32* done, const LoadA& load_a, const LoadB& load_b, Extent e, int add) {
    SHARED(float, a, [2][DEPTH][TILE + 4]);
    SHARED(float, b, [2][DEPTH][TILE + 4]);
    int row0 = blockIdx.x * TILE, col0 = blockIdx.y * TILE;
    int steps = (e.k + DEPTH - 1) / DEPTH, share = (steps + gridDim.z - 1) / gridDim.z * DEPTH;
    int begin = share * blockIdx.z, end = begin + share < e.k ? begin + share : e.k;

    Share<LoadA> share_a;
    Share<LoadB> share_b;
    share_a.start(load_a, row0, e.m);
    share_b.start(load_b, col0, e.n);
    float sum[4][4];
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sum[i][j] = 0.f;

    // Thread (ty, tx) owns rows 4 ty .. and columns 4 tx .. of the tile.
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16, stage = 0;
    if (begin < end) {
        share_a.read(load_a, begin, end);
        share_b.read(load_b, begin, end);
        share_a.write(a[0]);
        share_b.write(b[0]);
    }
    __syncthreads();
    for (int k0 = begin; k0 < end; k0 += DEPTH) {
        bool more = k0 + DEPTH < end;
        if (more) {
            share_a.read(load_a, k0 + DEPTH, end);
            share_b.read(load_b, k0 + DEPTH, end);
        }
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            float4 x = *(const float4*)&a[stage][k][ty * 4], y = *(const float4*)&b[stage][k][tx * 4];
            float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sum[i][j] += xs[i] * ys[j];
        }
        if (more) {
            share_a.write(a[stage ^ 1]);
            share_b.write(b[stage ^ 1]);
        }
        __syncthreads();
        stage ^= 1;
    }

    bool whole = gridDim.z == 1;
    i64 size = (i64)e.m * e.n;
    float* out = whole ? c : partial + size * blockIdx.z;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int row = row0 + ty * 4 + i, col = col0 + tx * 4 + j;
            if (row < e.m && col < e.n) put(out + (i64)row * e.n + col, sum[i][j], whole && add);
        }
    if (!whole) add_splits(c, partial, done, e, row0, col0, TILE, TILE, add);
}
