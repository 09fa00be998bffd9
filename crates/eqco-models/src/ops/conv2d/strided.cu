// Every STRIDEth pixel of both directions, on its own, and back: what a 1x1 convolution with a stride reads.
#include "vector.cuh"

struct StridedMap {
  unsigned height, width, out_height, out_width, vectors, stride;

  // Where among the vectors of [N, height, width, C] the one is that stands at `vector` among those of [N, out_height, out_width, C].
  __device__ __forceinline__ size_t place_of(unsigned vector) const {
    const unsigned part = vector % vectors, pixel = vector / vectors;
    const unsigned column = pixel % out_width, row = pixel / out_width % out_height, image = pixel / out_width / out_height;
    return ((static_cast<size_t>(image) * height + row * stride) * width + column * stride) * vectors + part;
  }
};

// Source [N, height, width, C] to target [N, out_height, out_width, C]. One thread 8 channels of the target.
template <class T>
__device__ __forceinline__ void take_pixels(const T *source, T *target, StridedMap map, unsigned threads) {
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= threads) return;
  Vector<T, 8>::load(source + map.place_of(thread) * 8).store(target + static_cast<size_t>(thread) * 8);
}

// target [N, height, width, C] = source [N, out_height, out_width, C] at the pixels that it comes from, and zero elsewhere. One thread
// 8 channels of the target.
template <class T>
__device__ __forceinline__ void put_pixels(const T *source, T *target, StridedMap map, unsigned threads) {
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= threads) return;
  const unsigned part = thread % map.vectors, pixel = thread / map.vectors;
  const unsigned column = pixel % map.width, row = pixel / map.width % map.height;
  const unsigned image = pixel / map.width / map.height;
  Vector<T, 8> value = {};
  if (row % map.stride == 0 && column % map.stride == 0) {
    const size_t place = (static_cast<size_t>(image) * map.out_height + row / map.stride) * map.out_width + column / map.stride;
    value = Vector<T, 8>::load(source + (place * map.vectors + part) * 8);
  }
  value.store(target + static_cast<size_t>(thread) * 8);
}

// The same where the target has a value already. One thread 8 channels of the source.
template <class T>
__device__ __forceinline__ void add_pixels(const T *source, T *target, StridedMap map, unsigned threads) {
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= threads) return;
  T *sum = target + map.place_of(thread) * 8;
  Vector<T, 8> value = Vector<T, 8>::load(sum);
  const Vector<T, 8> other = Vector<T, 8>::load(source + static_cast<size_t>(thread) * 8);
#pragma unroll
  for (unsigned i = 0; i < 8; ++i) value.values[i] += other.values[i];
  value.store(sum);
}

#define PIXELS(NAME, SUFFIX, T)                                                                                        \
  extern "C" __global__ void NAME##_##SUFFIX(const T *__restrict__ source, T *__restrict__ target, unsigned height,    \
                                             unsigned width, unsigned out_height, unsigned out_width,                  \
                                             unsigned vectors, unsigned stride, unsigned threads) {                    \
    NAME<T>(source, target, {height, width, out_height, out_width, vectors, stride}, threads);                         \
  }                                                                                                                    \
  EXPORT_KERNEL(NAME##_##SUFFIX)
PIXELS(take_pixels, f32, float)
PIXELS(take_pixels, bf16, bf16)
PIXELS(put_pixels, f32, float)
PIXELS(put_pixels, bf16, bf16)
PIXELS(add_pixels, f32, float)
PIXELS(add_pixels, bf16, bf16)
