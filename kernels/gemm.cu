// Matrix products of row-major matrices in f32: C = op(A) op(B), m x n over k terms.
#include "product.cuh"

// Lines that lie along memory: line i is p[i * stride ..].
struct Along {
    typedef const float* Line;
    typedef int Depth;
    static const bool DEEP = true;
    const float* p;
    int stride;
    METHOD Line line(int i) const { return p + (i64)i * stride; }
    METHOD Depth depth(int k) const { return k; }
    METHOD float get(Line line, Depth k) const { return line[k]; }
};

// Lines that lie across memory: depth k of line i is p[k * stride + i].
struct Across {
    typedef int Line;
    typedef const float* Depth;
    static const bool DEEP = false;
    const float* p;
    int stride;
    METHOD Line line(int i) const { return i; }
    METHOD Depth depth(int k) const { return p + (i64)k * stride; }
    METHOD float get(Line i, Depth depth) const { return depth[i]; }
};

// In the name of each variant n is a matrix as it is and t one that is stored transposed.
#define GEMM(name, LoadA, stride_a, LoadB, stride_b)                                              \
    KERNEL void __launch_bounds__(256) name(                                                      \
        float* c, float* partial, u32* done, const float* a, const float* b, Extent e, int add) { \
        LoadA load_a = {a, stride_a};                                                             \
        LoadB load_b = {b, stride_b};                                                             \
        product(c, partial, done, load_a, load_b, e, add);                                        \
    }

GEMM(gemm_nn, Along, e.k, Across, e.n)
GEMM(gemm_tn, Across, e.m, Across, e.n)
GEMM(gemm_nt, Along, e.k, Along, e.k)
GEMM(gemm_tt, Across, e.m, Along, e.k)
