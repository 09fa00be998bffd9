// Max-pooling 3x3, stride 2, padding 1. The forward pass leaves the place of each maximum within its window, one byte, so that
// the backward pass reads neither input nor output.
#include "vector.cuh"

constexpr unsigned POOL_SIDE = 3, POOL_STRIDE = 2, POOL_PADDING = 1;

struct PoolMap {
  unsigned height, width, channels, out_height, out_width;
};

// The places of VECTOR neighbouring channels, moved as one word where there are 8.
template <unsigned VECTOR>
struct Places {
  union {
    uint8_t values[VECTOR];
    uint64_t word;
  };

  __device__ __forceinline__ static Places load(const uint8_t *source) {
    Places places;
    if (VECTOR == 8) {
      places.word = *reinterpret_cast<const uint64_t *>(source);
    } else {
#pragma unroll
      for (unsigned i = 0; i < VECTOR; ++i) places.values[i] = source[i];
    }
    return places;
  }

  __device__ __forceinline__ void store(uint8_t *target) const {
    if (VECTOR == 8) {
      *reinterpret_cast<uint64_t *>(target) = word;
    } else {
#pragma unroll
      for (unsigned i = 0; i < VECTOR; ++i) target[i] = values[i];
    }
  }
};

// One thread an output pixel and vector of channels. The first of equal values in reading order wins, and a NaN wins always.
template <class T, unsigned VECTOR>
__device__ __forceinline__ void max_pool(const T *x, T *y, uint8_t *places, PoolMap map, unsigned threads) {
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= threads) return;
  const unsigned vectors = map.channels / VECTOR, channel = thread % vectors * VECTOR, pixel = thread / vectors;
  const unsigned column = pixel % map.out_width, row = pixel / map.out_width % map.out_height;
  const uint64_t image = pixel / map.out_width / map.out_height;
  Vector<T, VECTOR> largest;
  Places<VECTOR> place = {};
#pragma unroll
  for (unsigned i = 0; i < VECTOR; ++i) largest.values[i] = -INFINITY;
  for (unsigned k = 0; k < POOL_SIDE * POOL_SIDE; ++k) {
    // Below zero these wrap around, beyond any map.
    const unsigned r = row * POOL_STRIDE + k / POOL_SIDE - POOL_PADDING, c = column * POOL_STRIDE + k % POOL_SIDE - POOL_PADDING;
    if (r >= map.height || c >= map.width) continue;
    const Vector<T, VECTOR> value =
        Vector<T, VECTOR>::load(x + ((image * map.height + r) * map.width + c) * map.channels + channel);
#pragma unroll
    for (unsigned i = 0; i < VECTOR; ++i) {
      if (value.values[i] > largest.values[i] || value.values[i] != value.values[i]) {
        largest.values[i] = value.values[i];
        place.values[i] = static_cast<uint8_t>(k);
      }
    }
  }
  largest.store(y + static_cast<uint64_t>(pixel) * map.channels + channel);
  place.store(places + static_cast<uint64_t>(pixel) * map.channels + channel);
}

// One thread an input pixel and vector of channels: the gradients of the up to four windows whose maximum it is.
template <class T, unsigned VECTOR>
__device__ __forceinline__ void max_pool_gradient(const T *dy, const uint8_t *places, T *dx, PoolMap map, unsigned threads,
                                                  unsigned accumulate) {
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= threads) return;
  const unsigned vectors = map.channels / VECTOR, channel = thread % vectors * VECTOR, pixel = thread / vectors;
  const unsigned column = pixel % map.width, row = pixel / map.width % map.height;
  const uint64_t image = pixel / map.width / map.height;
  Vector<T, VECTOR> sum = {};
  if (accumulate) sum = Vector<T, VECTOR>::load(dx + static_cast<uint64_t>(pixel) * map.channels + channel);
  for (unsigned r = row / POOL_STRIDE; r <= (row + POOL_PADDING) / POOL_STRIDE && r < map.out_height; ++r) {
    for (unsigned c = column / POOL_STRIDE; c <= (column + POOL_PADDING) / POOL_STRIDE && c < map.out_width; ++c) {
      const unsigned own = (row + POOL_PADDING - r * POOL_STRIDE) * POOL_SIDE + column + POOL_PADDING - c * POOL_STRIDE;
      const uint64_t window = ((image * map.out_height + r) * map.out_width + c) * map.channels + channel;
      const Vector<T, VECTOR> gradient = Vector<T, VECTOR>::load(dy + window);
      const Places<VECTOR> place = Places<VECTOR>::load(places + window);
#pragma unroll
      for (unsigned i = 0; i < VECTOR; ++i) {
        // Rounded after every sum, as the portable form does, which adds into the stored gradient.
        if (place.values[i] == own) sum.values[i] = to_float(from_float<T>(sum.values[i] + gradient.values[i]));
      }
    }
  }
  sum.store(dx + static_cast<uint64_t>(pixel) * map.channels + channel);
}

#define MAX_POOL(SUFFIX, T, VECTOR)                                                                                    \
  extern "C" __global__ void max_pool_##SUFFIX(const T *__restrict__ x, T *__restrict__ y, uint8_t *__restrict__ places, \
                                               unsigned height, unsigned width, unsigned channels, unsigned threads) { \
    const PoolMap map{height, width, channels, (height + 1) / 2, (width + 1) / 2};                                     \
    max_pool<T, VECTOR>(x, y, places, map, threads);                                                                   \
  }                                                                                                                    \
  EXPORT_KERNEL(max_pool_##SUFFIX)                                                                                     \
  extern "C" __global__ void max_pool_gradient_##SUFFIX(                                                               \
      const T *__restrict__ dy, const uint8_t *__restrict__ places, T *__restrict__ dx, unsigned height,               \
      unsigned width, unsigned channels, unsigned threads, unsigned accumulate) {                                      \
    const PoolMap map{height, width, channels, (height + 1) / 2, (width + 1) / 2};                                     \
    max_pool_gradient<T, VECTOR>(dy, places, dx, map, threads, accumulate);                                            \
  }                                                                                                                    \
  EXPORT_KERNEL(max_pool_gradient_##SUFFIX)
MAX_POOL(f32, float, 8)
MAX_POOL(bf16, bf16, 8)
MAX_POOL(single_f32, float, 1)
MAX_POOL(single_bf16, bf16, 1)
