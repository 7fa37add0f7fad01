// The row-weighted loss of DER: L = sum_i w_ce[i] CE(o_i, label_i) + w_mse[i] sum_{j < width} (o_ij - z_ij)^2.
// `rows` is a table of label, w_ce, w_mse, width. A term of weight 0 is not evaluated, and a stored z that is
// NaN has none.
#include "common.cuh"

// One block; each warp takes every warps-th row. Writes terms = [L, current CE, MSE, replay CE], and the
// softmax of each row with a cross-entropy.
KERNEL void __launch_bounds__(1024) row_loss_forward(
    float* terms, float* probs, const float* logits, const float* rows, const float* targets,
    int n, int c, int current_start, int current_end) {
    SHARED(float, shared, [32]);
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    // What the first lane of this warp has added up.
    float current = 0.f, mse = 0.f, replay = 0.f;
    for (int i = warp; i < n; i += warps) {
        const float *o = logits + (i64)i * c, *row = rows + (i64)i * 4;
        float w_ce = row[1], w_mse = row[2];
        if (w_ce != 0.f) {
            float top = __int_as_float((int)0xff800000u), sum = 0.f;
            for (int j = lane; j < c; j += 32) top = fmaxf(top, o[j]);
            top = warp_max(top);
            for (int j = lane; j < c; j += 32) sum += expf(o[j] - top);
            sum = warp_sum(sum);
            for (int j = lane; j < c; j += 32) probs[(i64)i * c + j] = expf(o[j] - top) / sum;
            if (lane == 0) {
                float ce = w_ce * (logf(sum) + top - o[(int)row[0]]);
                if (i >= current_start && i < current_end) current += ce;
                else replay += ce;
            }
        }
        if (w_mse != 0.f) {
            const float* z = targets + (i64)i * c;
            int width = (int)row[3];
            float squares = 0.f;
            for (int j = lane; j < width; j += 32)
                if (!is_nan(z[j])) squares += (o[j] - z[j]) * (o[j] - z[j]);
            squares = warp_sum(squares);
            if (lane == 0) mse += w_mse * squares;
        }
    }
    current = block_sum(current, shared);
    mse = block_sum(mse, shared);
    replay = block_sum(replay, shared);
    if (threadIdx.x == 0) {
        terms[0] = current + mse + replay;
        terms[1] = current;
        terms[2] = mse;
        terms[3] = replay;
    }
}

// dx = dl (w_ce (softmax(o) - onehot(label)) + 2 w_mse (o - z))
KERNEL void row_loss_backward(
    float* dx, const float* probs, const float* logits, const float* rows, const float* targets,
    const float* dl, int n, int c, int add) {
    for (i64 at = grid_thread(); at < (i64)n * c; at += grid_threads()) {
        int j = (int)(at % c);
        const float* row = rows + at / c * 4;
        float d = 0.f;
        if (row[1] != 0.f) d += row[1] * (probs[at] - (j == (int)row[0] ? 1.f : 0.f));
        if (row[2] != 0.f && j < (int)row[3] && !is_nan(targets[at]))
            d += 2.f * row[2] * (logits[at] - targets[at]);
        put(dx + at, dl[0] * d, add);
    }
}
