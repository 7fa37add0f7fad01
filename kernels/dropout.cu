// Dropout. The decision for an element depends on its place only, so forward and backward are the
// same kernel and no mask is stored.
#include "common.cuh"

// Philox4x32 with 10 rounds: J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy
// as 1, 2, 3", SC 2011.
DEV void philox(u32 c[4], u32 k0, u32 k1) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        u64 a = (u64)0xD2511F53u * c[0], b = (u64)0xCD9E8D57u * c[2];
        u32 next0 = (u32)(b >> 32) ^ c[1] ^ k0, next2 = (u32)(a >> 32) ^ c[3] ^ k1;
        c[0] = next0, c[1] = (u32)b, c[2] = next2, c[3] = (u32)a;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
}

// One thread decides about four consecutive elements of a sample. `scale` is 1 / (1 - p); the number of
// the step lies in device memory, as two halves, because a captured launch repeats its arguments.
KERNEL void dropout(
    float* y, const float* x, int samples, i64 size, float p, float scale, u64 seed,
    const u32* step, u32 layer, int add) {
    i64 blocks = (size + 3) / 4;
    for (i64 at = grid_thread(); at < samples * blocks; at += grid_threads()) {
        i64 sample = at / blocks, block = at % blocks;
        u32 counter[4] = {(u32)block, (u32)sample, layer, step[0]};
        philox(counter, (u32)seed, (u32)(seed >> 32) ^ step[1]);
        for (int e = 0; e < 4 && block * 4 + e < size; e++) {
            bool kept = (float)(counter[e] >> 8) * (1.f / 16777216.f) >= p;
            i64 i = sample * size + block * 4 + e;
            // A product with 0, so that NaN stays NaN.
            put(y + i, x[i] * (kept ? scale : 0.f), add);
        }
    }
}
