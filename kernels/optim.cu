// Stochastic gradient descent over the flat parameters, as PyTorch's.
#include "common.cuh"

// momentum == 0: v is not touched. first: v is set to the gradient. A weight decay of 0 does not look at
// the weight.
KERNEL void sgd(
    float* values, const float* grads, float* v, i64 n, float lr, float momentum, float dampening,
    float weight_decay, int nesterov, int first) {
    for (i64 i = grid_thread(); i < n; i += grid_threads()) {
        float p = values[i], d = grads[i];
        if (weight_decay != 0.f) d += weight_decay * p;
        if (momentum != 0.f) {
            float next = first ? d : momentum * v[i] + (1.f - dampening) * d;
            v[i] = next;
            d = nesterov ? d + momentum * next : next;
        }
        values[i] = p - lr * d;
    }
}
