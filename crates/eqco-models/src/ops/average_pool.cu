// Global average pooling, `[N, pixels, C]` to `[N, C]` in f32.
#include "vector.cuh"

template <class T, unsigned VECTOR>
__device__ __forceinline__ void average_pool(const T *x, float *y, unsigned pixels, unsigned channels, uint64_t threads) {
  const uint64_t thread = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (thread >= threads) return;
  const unsigned vectors = channels / VECTOR, channel = thread % vectors * VECTOR;
  const uint64_t image = thread / vectors;
  Vector<float, VECTOR> sum = {};
  for (unsigned pixel = 0; pixel < pixels; ++pixel) {
    const Vector<T, VECTOR> value = Vector<T, VECTOR>::load(x + (image * pixels + pixel) * channels + channel);
#pragma unroll
    for (unsigned i = 0; i < VECTOR; ++i) sum.values[i] += value.values[i];
  }
  const float share = 1.0f / pixels;
#pragma unroll
  for (unsigned i = 0; i < VECTOR; ++i) sum.values[i] *= share;
  sum.store(y + image * channels + channel);
}

template <class T, unsigned VECTOR>
__device__ __forceinline__ void average_pool_gradient(const float *dy, T *dx, unsigned pixels, unsigned channels,
                                                      uint64_t threads, unsigned accumulate) {
  const uint64_t thread = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (thread >= threads) return;
  const unsigned vectors = channels / VECTOR, channel = thread % vectors * VECTOR;
  const uint64_t pixel = thread / vectors;
  const float share = 1.0f / pixels;
  const Vector<float, VECTOR> gradient = Vector<float, VECTOR>::load(dy + pixel / pixels * channels + channel);
  T *target = dx + pixel * channels + channel;
  Vector<T, VECTOR> sum = {};
  if (accumulate) sum = Vector<T, VECTOR>::load(target);
#pragma unroll
  for (unsigned i = 0; i < VECTOR; ++i) sum.values[i] += gradient.values[i] * share;
  sum.store(target);
}

#define AVERAGE_POOL(SUFFIX, T, VECTOR)                                                                                \
  extern "C" __global__ void average_pool_##SUFFIX(const T *__restrict__ x, float *__restrict__ y, unsigned pixels,    \
                                                   unsigned channels, uint64_t threads) {                              \
    average_pool<T, VECTOR>(x, y, pixels, channels, threads);                                                          \
  }                                                                                                                    \
  EXPORT_KERNEL(average_pool_##SUFFIX)                                                                                 \
  extern "C" __global__ void average_pool_gradient_##SUFFIX(const float *__restrict__ dy, T *__restrict__ dx,          \
                                                            unsigned pixels, unsigned channels, uint64_t threads,      \
                                                            unsigned accumulate) {                                     \
    average_pool_gradient<T, VECTOR>(dy, dx, pixels, channels, threads, accumulate);                                   \
  }                                                                                                                    \
  EXPORT_KERNEL(average_pool_gradient_##SUFFIX)
AVERAGE_POOL(f32, float, 8)
AVERAGE_POOL(bf16, bf16, 8)
AVERAGE_POOL(single_f32, float, 1)
AVERAGE_POOL(single_bf16, bf16, 1)
