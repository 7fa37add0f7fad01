// Batch normalisation of rows x channels, with the statistics of each group of consecutive rows.
//
// A group's rows are divided among the blocks of a column of the grid; each leaves its part of the
// statistics, and a second kernel merges the parts in order.
#include "common.cuh"

const int MAX_GROUPS = 8;

// Group g holds the rows first[g] .. first[g + 1].
struct Groups {
    int count;
    int first[MAX_GROUPS + 1];
};

// The rows that part `part` of `parts` of group g takes.
struct Rows {
    i64 first, last;
};

DEV Rows rows_of(const Groups& groups, int g, int part, int parts) {
    i64 start = groups.first[g], size = groups.first[g + 1] - start;
    return {start + size * part / parts, start + size * (part + 1) / parts};
}

// The sums over threadIdx.y of a block (32, 8); complete where threadIdx.y is 0.
DEV float column_sum(float x, float (*shared)[32]) {
    shared[threadIdx.y][threadIdx.x] = x;
    __syncthreads();
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < 8; i++) sum += shared[i][threadIdx.x];
    __syncthreads();
    return sum;
}

// Mean, what rounding left out of it, and summed squared distance to it, of each part:
// moments[group][part][3][c]. Block (32, 8), grid (ceil(c / 32), parts, groups). The mean comes first,
// then the distances: a channel whose mean is far larger than its deviation keeps its digits.
KERNEL void __launch_bounds__(256) norm_moments(
    float* moments, const float* x, int c, Groups groups) {
    SHARED(float, shared, [8][32]);
    int j = blockIdx.x * 32 + threadIdx.x;
    Rows rows = rows_of(groups, blockIdx.z, blockIdx.y, gridDim.y);
    float count = fmaxf((float)(rows.last - rows.first), 1.f), sum = 0.f;
    if (j < c) {
#pragma unroll 4
        for (i64 row = rows.first + threadIdx.y; row < rows.last; row += 8) sum += x[row * c + j];
    }
    float mean = column_sum(sum, shared) / count;
    float rest = 0.f, squares = 0.f;
    if (j < c) {
#pragma unroll 4
        for (i64 row = rows.first + threadIdx.y; row < rows.last; row += 8) {
            float d = x[row * c + j] - mean;
            rest += d;
            squares += d * d;
        }
    }
    rest = column_sum(rest, shared);
    squares = column_sum(squares, shared);
    if (threadIdx.y == 0 && j < c) {
        float* part = moments + ((i64)blockIdx.z * gridDim.y + blockIdx.y) * 3 * c;
        part[j] = mean;
        part[c + j] = rest / count;
        part[2 * c + j] = fmaxf(squares - rest * rest / count, 0.f);
    }
}

// Merges the parts (Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing
// sample variances", 1979), writes mean and 1 / sqrt(var + eps) of each group, and moves the running
// statistics group after group. A group of less than two rows leaves them alone.
KERNEL void norm_statistics(
    float* mean, float* inv_std, float* running, const float* moments, int c, Groups groups,
    int parts, float eps, float momentum) {
    int j = (int)grid_thread();
    if (j >= c) return;
    for (int g = 0; g < groups.count; g++) {
        double centre = 0, squares = 0, count = 0;
        for (int p = 0; p < parts; p++) {
            Rows rows = rows_of(groups, g, p, parts);
            double n = (double)(rows.last - rows.first);
            if (n == 0) continue;
            const float* part = moments + ((i64)g * parts + p) * 3 * c;
            double d = (double)part[j] + part[c + j] - centre, all = count + n;
            centre += d * n / all;
            squares += part[2 * c + j] + d * d * count * n / all;
            count = all;
        }
        mean[g * c + j] = (float)centre;
        inv_std[g * c + j] = (float)(1 / sqrt(squares / (count > 1 ? count : 1) + eps));
        if (count > 1) {
            running[j] = (float)((1.0 - momentum) * running[j] + momentum * centre);
            running[c + j] = (float)((1.0 - momentum) * running[c + j] + momentum * (squares / (count - 1)));
        }
    }
}

// The same from running statistics.
KERNEL void norm_running(float* mean, float* inv_std, const float* running, int c, float eps) {
    int j = (int)grid_thread();
    if (j >= c) return;
    mean[j] = running[j];
    inv_std[j] = (float)(1 / sqrt((double)running[c + j] + eps));
}

DEV int group_of(const Groups& groups, i64 row) {
    int g = 0;
    while (g + 1 < groups.count && row >= groups.first[g + 1]) g++;
    return g;
}

// The numbers of the rows of the groups, in fours where a row has them and all addresses allow it.
template <class F> DEV void each_place(const Groups& groups, int c, bool fours, F f) {
    i64 first = (i64)groups.first[0] * c, last = (i64)groups.first[groups.count] * c;
    each_number(first, last, fours && c % 4 == 0, f);
}

// y = (x - mean) inv_std gamma + beta, over the rows of the groups; then the residual is added, if there
// is one, and the ReLU applied.
KERNEL void norm_apply(
    float* y, const float* x, const float* residual, const float* mean, const float* inv_std,
    const float* gamma, const float* beta, int c, Groups groups, int relu) {
    bool fours = in_fours(y, x, residual, mean, inv_std, gamma, beta);
    each_place(groups, c, fours, [&](i64 at, auto pack) {
        const int W = decltype(pack)::width;
        int j = (int)(at % c), s = group_of(groups, at / c) * c + j;
        auto centre = load<W>(mean + s), scale = load<W>(inv_std + s), in = load<W>(x + at);
        auto by = load<W>(gamma + j), shift = load<W>(beta + j), beside = pack;
        if (residual) beside = load<W>(residual + at);
#pragma unroll
        for (int e = 0; e < W; e++) {
            float out = (in.v[e] - centre.v[e]) * (scale.v[e] * by.v[e]) + shift.v[e];
            if (residual) out += beside.v[e];
            pack.v[e] = relu && out < 0.f ? 0.f : out;
        }
        put(y + at, pack, 0);
    });
}

// Sum of dy and of dy * h for each part, h = (x - mean) inv_std: sums[group][part][2][c]. Where y, the output
// of a ReLU, is given and not above 0, dy counts as 0. Block and grid as in norm_moments.
KERNEL void __launch_bounds__(256) norm_backward_sums(
    float* sums, const float* x, const float* dy, const float* y, const float* mean,
    const float* inv_std, int c, Groups groups) {
    SHARED(float, shared, [8][32]);
    int j = blockIdx.x * 32 + threadIdx.x, g = blockIdx.z;
    Rows rows = rows_of(groups, g, blockIdx.y, gridDim.y);
    float sum = 0.f, dot = 0.f;
    if (j < c) {
        float centre = mean[g * c + j], scale = inv_std[g * c + j];
#pragma unroll 4
        for (i64 row = rows.first + threadIdx.y; row < rows.last; row += 8) {
            i64 at = row * c + j;
            float d = y && !(y[at] > 0.f) ? 0.f : dy[at];
            sum += d;
            dot += d * ((x[at] - centre) * scale);
        }
    }
    sum = column_sum(sum, shared);
    dot = column_sum(dot, shared);
    if (threadIdx.y == 0 && j < c) {
        float* part = sums + ((i64)g * gridDim.y + blockIdx.y) * 2 * c;
        part[j] = sum;
        part[c + j] = dot;
    }
}

// Adds up the parts: the first part of each group becomes the sums of the group, and the gradients of
// scale and shift (dparams, 2 x c) are the sums over the groups.
KERNEL void norm_backward_merge(
    float* sums, float* dparams, int c, Groups groups, int parts, int add) {
    int j = (int)grid_thread();
    if (j >= c) return;
    float dgamma = 0.f, dbeta = 0.f;
    for (int g = 0; g < groups.count; g++) {
        float sum = 0.f, dot = 0.f;
        float* first = sums + (i64)g * parts * 2 * c;
        for (int p = 0; p < parts; p++) {
            sum += first[(i64)p * 2 * c + j];
            dot += first[((i64)p * 2 + 1) * c + j];
        }
        first[j] = sum;
        first[c + j] = dot;
        dgamma += dot;
        dbeta += sum;
    }
    put(dparams + j, dgamma, add);
    put(dparams + c + j, dbeta, add);
}

// dx = gamma inv_std (dy - sum / n - h dot / n); with constant statistics (eval) gamma inv_std dy; and
// dresidual = dy. Either may be null; y masks dy as in norm_backward_sums.
KERNEL void norm_backward_apply(
    float* dx, float* dresidual, const float* x, const float* dy, const float* y,
    const float* gamma, const float* mean, const float* inv_std, const float* sums, int c,
    Groups groups, int parts, int eval, int add, int add_residual) {
    bool fours = in_fours(dx, dresidual, x, dy, y, gamma) && in_fours(mean, inv_std, sums);
    each_place(groups, c, fours, [&](i64 at, auto pack) {
        const int W = decltype(pack)::width;
        auto d = load<W>(dy + at);
        if (y) {
            auto out = load<W>(y + at);
#pragma unroll
            for (int e = 0; e < W; e++) d.v[e] = out.v[e] > 0.f ? d.v[e] : 0.f;
        }
        if (dresidual) put(dresidual + at, d, add_residual);
        if (!dx) return;
        int j = (int)(at % c), g = group_of(groups, at / c), s = g * c + j;
        auto scale = load<W>(inv_std + s), by = load<W>(gamma + j);
        if (!eval) {
            float n = (float)(groups.first[g + 1] - groups.first[g]);
            const float* of_group = sums + (i64)g * parts * 2 * c;
            auto sum = load<W>(of_group + j), dot = load<W>(of_group + c + j);
            auto in = load<W>(x + at), centre = load<W>(mean + s);
#pragma unroll
            for (int e = 0; e < W; e++)
                d.v[e] -= sum.v[e] / n +
                          (in.v[e] - centre.v[e]) * scale.v[e] * (dot.v[e] / n);
        }
#pragma unroll
        for (int e = 0; e < W; e++) d.v[e] *= by.v[e] * scale.v[e];
        put(dx + at, d, add);
    });
}
