// What becomes of the mini-batches of an evaluation, kept here until somebody asks.
#include "common.cuh"

// The column of the largest of c numbers among those whose `keep` is not 0 (all, without `keep`), in every
// lane of a warp; -1 if there is none. Of equal numbers the first counts; a NaN is larger than nothing, and
// nothing is larger than a NaN that comes first.
DEV float largest(const float* o, const float* keep, int c, int lane) {
    // Columns as numbers, which hold them exactly; the smallest of them is minus the largest of their minus.
    float none = (float)-c, first = none, best = none, top = __int_as_float((int)0xff800000u);
    for (int j = lane; j < c; j += 32)
        if (!keep || keep[j] != 0.f) {
            first = fmaxf(first, (float)-j);
            top = fmaxf(top, o[j]);
        }
    first = warp_max(first);
    top = warp_max(top);
    if (first == none) return -1.f;
    if (is_nan(o[(int)-first])) return -first;
    for (int j = lane; j < c; j += 32)
        if ((!keep || keep[j] != 0.f) && o[j] == top) best = fmaxf(best, (float)-j);
    return -warp_max(best);
}

// One block; each warp takes every warps-th row. Appends to `ledger`, whose first number says how many of those
// behind it are taken: the loss, and for each row the column of its largest number and that of the largest one
// that is kept.
KERNEL void __launch_bounds__(1024) note_outcome(
    float* ledger, const float* loss, const float* logits, const float* keep, int n, int c) {
    SHARED(float, taken, [1]);
    if (threadIdx.x == 0) {
        taken[0] = ledger[0];
        ledger[0] += (float)(1 + 2 * n);
    }
    __syncthreads();
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    float* to = ledger + 1 + (int)taken[0];
    for (int i = warp; i < n; i += warps) {
        const float* o = logits + (i64)i * c;
        float guess = largest(o, nullptr, c, lane), kept = largest(o, keep, c, lane);
        if (lane == 0) {
            to[1 + 2 * i] = guess;
            to[2 + 2 * i] = kept;
        }
    }
    if (threadIdx.x == 0) to[0] = loss[0];
}
