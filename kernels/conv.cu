// Convolution as implicit matrix products over images stored channels last; the weight is
// [kernel row][kernel column][in][out]. No product with the zeros of the padding is avoided, none of
// them is stored.
#include "matrix.cuh"
#include "product.cuh"
#include "tensor.cuh"

// Samples, input channels, rows, columns; output channels, rows, columns; kernel, stride, padding.
struct Shape {
    int n, c, h, w;
    int o, p, q;
    int r, s, stride_h, stride_w, pad_h, pad_w;
};

// A pixel of a batch: the sample and the place in it.
struct Pixel {
    int sample, y, x;
};

DEV Pixel pixel(int at, int h, int w) { return {at / (h * w), at / w % h, at % w}; }

// A tap of the kernel and a channel.
struct Tap {
    int r, s, channel;
};

DEV Tap tap(int at, int channels, int s) {
    int place = at / channels;
    return {place / s, place % s, at % channels};
}

// The input as windows see it: one window for each output pixel, one number for each tap and channel.
DEV const float* seen(const float* x, const Shape& g, const Pixel& window, const Tap& t) {
    int y = window.y * g.stride_h + t.r - g.pad_h, column = window.x * g.stride_w + t.s - g.pad_w;
    if (y < 0 || y >= g.h || column < 0 || column >= g.w) return nullptr;
    return x + (((i64)window.sample * g.h + y) * g.w + column) * g.c + t.channel;
}

// Lines are windows, depths are taps.
struct Windows {
    typedef Pixel Line;
    typedef Tap Depth;
    static const bool DEEP = true;
    const float* x;
    Shape g;
    METHOD Line line(int i) const { return pixel(i, g.p, g.q); }
    METHOD Depth depth(int k) const { return tap(k, g.c, g.s); }
    METHOD const float* at(const Line& window, const Depth& t) const { return seen(x, g, window, t); }
};

// Lines are taps, depths are windows.
struct Taps {
    typedef Tap Line;
    typedef Pixel Depth;
    static const bool DEEP = false;
    const float* x;
    Shape g;
    METHOD Line line(int i) const { return tap(i, g.c, g.s); }
    METHOD Depth depth(int k) const { return pixel(k, g.p, g.q); }
    METHOD const float* at(const Line& t, const Depth& window) const { return seen(x, g, window, t); }
};

// The gradient of the output as input pixels see it: lines are input pixels, a depth is a tap and an
// output channel; nothing where no window has that tap on that pixel.
struct Outputs {
    typedef Pixel Line;
    typedef Tap Depth;
    static const bool DEEP = true;
    const float* dy;
    Shape g;
    METHOD Line line(int i) const { return pixel(i, g.h, g.w); }
    METHOD Depth depth(int k) const { return tap(k, g.o, g.s); }
    METHOD const float* at(const Line& input, const Depth& t) const {
        int y = input.y + g.pad_h - t.r, x = input.x + g.pad_w - t.s;
        if (y < 0 || x < 0 || y % g.stride_h || x % g.stride_w) return nullptr;
        y /= g.stride_h, x /= g.stride_w;
        if (y >= g.p || x >= g.q) return nullptr;
        return dy + (((i64)input.sample * g.p + y) * g.q + x) * g.o + t.channel;
    }
};

// The weight with input channels as lines; a depth is a tap and an output channel.
struct Weight {
    typedef int Line;
    typedef const float* Depth;
    static const bool DEEP = true;
    const float* w;
    Shape g;
    METHOD Line line(int i) const { return i * g.o; }
    METHOD Depth depth(int k) const { return w + (i64)(k / g.o) * g.c * g.o + k % g.o; }
    METHOD const float* at(Line line, Depth depth) const { return depth + line; }
};

#define CONV(suffix, PRODUCT)                                                                      \
    KERNEL void __launch_bounds__(256) conv_forward##suffix(                                       \
        float* y, float* partial, u32* done, const float* x, const float* w, Shape g) {            \
        Windows a = {x, g};                                                                        \
        Across b = {w, g.o};                                                                       \
        Extent e = {g.n * g.p * g.q, g.o, g.r * g.s * g.c};                                        \
        PRODUCT(y, partial, done, a, b, e, 0);                                                     \
    }                                                                                              \
    KERNEL void __launch_bounds__(256) conv_backward_data##suffix(                                 \
        float* dx, float* partial, u32* done, const float* dy, const float* w, Shape g, int add) { \
        Outputs a = {dy, g};                                                                       \
        Weight b = {w, g};                                                                         \
        Extent e = {g.n * g.h * g.w, g.c, g.r * g.s * g.o};                                        \
        PRODUCT(dx, partial, done, a, b, e, add);                                                  \
    }                                                                                              \
    KERNEL void __launch_bounds__(256) conv_backward_weight##suffix(                               \
        float* dw, float* partial, u32* done, const float* x, const float* dy, Shape g, int add) { \
        Taps a = {x, g};                                                                           \
        Across b = {dy, g.o};                                                                      \
        Extent e = {g.r * g.s * g.c, g.o, g.n * g.p * g.q};                                        \
        PRODUCT(dw, partial, done, a, b, e, add);                                                  \
    }

CONV(, product)
CONV(_tf32, tensor_product<Tf32>)
CONV(_bf16, tensor_product<Bf16>)
