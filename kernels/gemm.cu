// Matrix products of row-major matrices: C = op(A) op(B), m x n over k terms.
#include "matrix.cuh"
#include "product.cuh"
#include "tensor.cuh"

// In the name of each variant n is a matrix as it is and t one that is stored transposed.
#define GEMM(name, PRODUCT, LoadA, stride_a, LoadB, stride_b)                                     \
    KERNEL void __launch_bounds__(256) name(                                                      \
        float* c, float* partial, u32* done, const float* a, const float* b, Extent e, int add) { \
        LoadA load_a = {a, stride_a};                                                             \
        LoadB load_b = {b, stride_b};                                                             \
        PRODUCT(c, partial, done, load_a, load_b, e, add);                                        \
    }

#define GEMMS(suffix, PRODUCT)                                    \
    GEMM(gemm_nn##suffix, PRODUCT, Along, e.k, Across, e.n)       \
    GEMM(gemm_tn##suffix, PRODUCT, Across, e.m, Across, e.n)      \
    GEMM(gemm_nt##suffix, PRODUCT, Along, e.k, Along, e.k)        \
    GEMM(gemm_tt##suffix, PRODUCT, Across, e.m, Along, e.k)

GEMMS(, product)
GEMMS(_tf32, tensor_product<Tf32>)
GEMMS(_bf16, tensor_product<Bf16>)
