// Element by element over flat arrays: sums, ReLU, and changes of format.
#include "vector.cuh"

// target += source
template <class T>
__device__ __forceinline__ void add_into(T *target, const T *source, size_t count, bool aligned) {
  FOR_EIGHTS(count, aligned) {
    Vector<T, 8> sum = eight.load<T>(target);
    const Vector<T, 8> other = eight.load<T>(source);
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) sum.values[i] += other.values[i];
    eight.store<T>(sum, target);
  }
}

// y = max(0, x); a NaN stays one.
template <class T>
__device__ __forceinline__ void relu(const T *x, T *y, size_t count, bool aligned) {
  FOR_EIGHTS(count, aligned) {
    Vector<T, 8> value = eight.load<T>(x);
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) value.values[i] = value.values[i] < 0.0f ? 0.0f : value.values[i];
    eight.store<T>(value, y);
  }
}

// dy = 0 where the output was not positive.
template <class T>
__device__ __forceinline__ void relu_gradient(const T *y, T *dy, size_t count, bool aligned) {
  FOR_EIGHTS(count, aligned) {
    const Vector<T, 8> output = eight.load<T>(y);
    Vector<T, 8> gradient = eight.load<T>(dy);
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) gradient.values[i] = output.values[i] > 0.0f ? gradient.values[i] : 0.0f;
    eight.store<T>(gradient, dy);
  }
}

#define ELEMENTS(SUFFIX, T)                                                                                            \
  extern "C" __global__ void add_into_##SUFFIX(const T *__restrict__ source, T *__restrict__ target, uint64_t count,   \
                                               unsigned aligned) {                                                     \
    add_into<T>(target, source, count, aligned);                                                                       \
  }                                                                                                                    \
  EXPORT_KERNEL(add_into_##SUFFIX)                                                                                     \
  extern "C" __global__ void relu_##SUFFIX(const T *__restrict__ x, T *__restrict__ y, uint64_t count,                 \
                                           unsigned aligned) {                                                         \
    relu<T>(x, y, count, aligned);                                                                                     \
  }                                                                                                                    \
  EXPORT_KERNEL(relu_##SUFFIX)                                                                                         \
  extern "C" __global__ void relu_gradient_##SUFFIX(const T *__restrict__ y, T *__restrict__ dy, uint64_t count,       \
                                                    unsigned aligned) {                                                \
    relu_gradient<T>(y, dy, count, aligned);                                                                           \
  }                                                                                                                    \
  EXPORT_KERNEL(relu_gradient_##SUFFIX)
ELEMENTS(f32, float)
ELEMENTS(bf16, bf16)

// Weights of a convolution in bf16, from those that are optimised.
extern "C" __global__ void narrow(const float *__restrict__ source, bf16 *__restrict__ target, uint64_t count,
                                  unsigned aligned) {
  FOR_EIGHTS(count, aligned) {
    const Vector<float, 8> value = eight.load<float>(source);
    Vector<bf16, 8> rounded;
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) rounded.values[i] = value.values[i];
    eight.store<bf16>(rounded, target);
  }
}
EXPORT_KERNEL(narrow)

// target (+)= source
extern "C" __global__ void widen(const bf16 *__restrict__ source, float *__restrict__ target, uint64_t count,
                                 unsigned aligned, unsigned accumulate) {
  FOR_EIGHTS(count, aligned) {
    const Vector<bf16, 8> value = eight.load<bf16>(source);
    Vector<float, 8> sum = accumulate ? eight.load<float>(target) : Vector<float, 8>{};
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) sum.values[i] += value.values[i];
    eight.store<float>(sum, target);
  }
}
EXPORT_KERNEL(widen)
