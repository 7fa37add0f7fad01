// Pooling of images stored channels last. The backward passes gather: each input looks for the windows
// that cover it, so nothing is added by two threads.
#include "common.cuh"

// How windows lie along one axis. kernel > 0: fixed size, step and padding; otherwise `out` windows that
// cover the axis as PyTorch's adaptive pooling does.
struct Axis {
    int length, out, kernel, stride, padding;
};

struct Pool {
    int n, c;
    Axis rows, cols;
};

// Positions inside the image.
struct Span {
    int first, last;
};

DEV Span span(const Axis& a, int window) {
    if (a.kernel > 0) {
        int start = window * a.stride - a.padding, end = start + a.kernel;
        return {start > 0 ? start : 0, end < a.length ? end : a.length};
    }
    i64 all = a.length;
    return {(int)(window * all / a.out), (int)(((window + 1) * all + a.out - 1) / a.out)};
}

DEV int divisor(const Axis& a, int window) {
    Span s = span(a, window);
    return a.kernel > 0 ? a.kernel : s.last - s.first;
}

// The windows that cover a position of the image.
DEV Span windows(const Axis& a, int at) {
    if (a.kernel > 0) {
        int low = at + a.padding - a.kernel + 1;
        int first = low > 0 ? (low + a.stride - 1) / a.stride : 0;
        int last = (at + a.padding) / a.stride + 1;
        return {first, last < a.out ? last : a.out};
    }
    i64 all = a.length;
    return {(int)((i64)at * a.out / all), (int)(((i64)(at + 1) * a.out + all - 1) / all)};
}

struct Place {
    int channel, x, y;
    i64 sample;
};

// The place of number `at` of images of rows x cols.
DEV Place place(i64 at, int c, int rows, int cols) {
    i64 pixel = at / c;
    return {(int)(at % c), (int)(pixel % cols), (int)(pixel / cols % rows), pixel / cols / rows};
}

DEV i64 index(const Place& p, int c, int rows, int cols, int y, int x) {
    return ((p.sample * rows + y) * cols + x) * c + p.channel;
}

// Minus infinity for a window without a position; a NaN wins.
KERNEL void max_pool_forward(float* y, const float* x, Pool g) {
    i64 size = (i64)g.n * g.c * g.rows.out * g.cols.out;
    for (i64 at = grid_thread(); at < size; at += grid_threads()) {
        Place p = place(at, g.c, g.rows.out, g.cols.out);
        Span rows = span(g.rows, p.y), cols = span(g.cols, p.x);
        float top = __int_as_float((int)0xff800000u);
        for (int i = rows.first; i < rows.last; i++)
            for (int j = cols.first; j < cols.last; j++) {
                float v = x[index(p, g.c, g.rows.length, g.cols.length, i, j)];
                if (v > top || is_nan(v)) top = v;
            }
        y[at] = top;
    }
}

DEV bool same(float a, float b) { return a == b || (is_nan(a) && is_nan(b)); }

// The gradient of a window goes to its first largest value: to this input, if it equals the maximum y
// and no position before it in the window does.
KERNEL void max_pool_backward(
    float* dx, const float* x, const float* y, const float* dy, Pool g, int add) {
    int h = g.rows.length, w = g.cols.length;
    i64 size = (i64)g.n * g.c * h * w;
    for (i64 at = grid_thread(); at < size; at += grid_threads()) {
        Place p = place(at, g.c, h, w);
        Span over = windows(g.rows, p.y), across = windows(g.cols, p.x);
        float sum = 0.f;
        for (int i = over.first; i < over.last; i++)
            for (int j = across.first; j < across.last; j++) {
                Span rows = span(g.rows, i), cols = span(g.cols, j);
                i64 out = index(p, g.c, g.rows.out, g.cols.out, i, j);
                bool wins = same(x[at], y[out]);
                for (int r = rows.first; wins && r <= p.y; r++)
                    for (int s = cols.first; wins && s < cols.last; s++) {
                        if (r == p.y && s >= p.x) break;
                        wins = !same(x[index(p, g.c, h, w, r, s)], y[out]);
                    }
                if (wins) sum += dy[out];
            }
        put(dx + at, sum, add);
    }
}

KERNEL void avg_pool_forward(float* y, const float* x, Pool g) {
    i64 size = (i64)g.n * g.c * g.rows.out * g.cols.out;
    for (i64 at = grid_thread(); at < size; at += grid_threads()) {
        Place p = place(at, g.c, g.rows.out, g.cols.out);
        Span rows = span(g.rows, p.y), cols = span(g.cols, p.x);
        float sum = 0.f;
        for (int i = rows.first; i < rows.last; i++)
            for (int j = cols.first; j < cols.last; j++)
                sum += x[index(p, g.c, g.rows.length, g.cols.length, i, j)];
        y[at] = sum / (float)(divisor(g.rows, p.y) * divisor(g.cols, p.x));
    }
}

KERNEL void avg_pool_backward(float* dx, const float* dy, Pool g, int add) {
    int h = g.rows.length, w = g.cols.length;
    i64 size = (i64)g.n * g.c * h * w;
    for (i64 at = grid_thread(); at < size; at += grid_threads()) {
        Place p = place(at, g.c, h, w);
        Span over = windows(g.rows, p.y), across = windows(g.cols, p.x);
        float sum = 0.f;
        for (int i = over.first; i < over.last; i++)
            for (int j = across.first; j < across.last; j++)
                sum += dy[index(p, g.c, g.rows.out, g.cols.out, i, j)] /
                       (float)(divisor(g.rows, i) * divisor(g.cols, j));
        put(dx + at, sum, add);
    }
}
