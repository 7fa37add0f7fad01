// Stochastic gradient descent over the flat parameters, as PyTorch's.
#include "common.cuh"

// momentum == 0: v is not touched. first: v is set to the gradient. A weight decay of 0 does not look at
// the weight. The learning rate lies in device memory: a captured launch repeats its arguments.
KERNEL void sgd(
    float* values, const float* grads, float* v, i64 n, const float* lr, float momentum, float dampening,
    float weight_decay, int nesterov, int first) {
    float rate = lr[0];
    each_number(0, n, in_fours(values, grads, v), [&](i64 i, auto pack) {
        const int W = decltype(pack)::width;
        auto p = load<W>(values + i), d = load<W>(grads + i), m = pack;
        if (momentum != 0.f && !first) m = load<W>(v + i);
#pragma unroll
        for (int e = 0; e < W; e++) {
            if (weight_decay != 0.f) d.v[e] += weight_decay * p.v[e];
            if (momentum != 0.f) {
                m.v[e] = first ? d.v[e] : momentum * m.v[e] + (1.f - dampening) * d.v[e];
                d.v[e] = nesterov ? d.v[e] + momentum * m.v[e] : m.v[e];
            }
            p.v[e] -= rate * d.v[e];
        }
        if (momentum != 0.f) put(v + i, m, 0);
        put(values + i, p, 0);
    });
}
