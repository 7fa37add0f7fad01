// A row-major matrix as an operand of a product (see product.cuh).
#pragma once
#include "common.cuh"

// Lines that lie along memory: line i is p[i * stride ..].
struct Along {
    typedef const float* Line;
    typedef int Depth;
    static const bool DEEP = true;
    const float* p;
    int stride;
    METHOD Line line(int i) const { return p + (i64)i * stride; }
    METHOD Depth depth(int k) const { return k; }
    METHOD const float* at(Line line, Depth k) const { return line + k; }
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
    METHOD const float* at(Line i, Depth depth) const { return depth + i; }
};
