// A network's first convolution as a product of matrices: the pixels that each output sees become a row.
#include "vector.cuh"

// Weights and their gradients, as rows that are a little longer than what they hold.

// Source [rows, length] to target [rows, wide], `wide` being a multiple of 8, with zeros behind. One thread 8 places of the target.
extern "C" __global__ void widen_rows(const float *__restrict__ source, bf16 *__restrict__ target, unsigned length,
                                      unsigned wide, unsigned threads) {
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= threads) return;
  const unsigned vectors = wide / 8, first = thread % vectors * 8;
  const float *row = source + static_cast<size_t>(thread / vectors) * length;
  Vector<bf16, 8> vector;
#pragma unroll
  for (unsigned i = 0; i < 8; ++i) vector.values[i] = first + i < length ? row[first + i] : 0.0f;
  vector.store(target + static_cast<size_t>(thread) * 8);
}
EXPORT_KERNEL(widen_rows)

// target [rows, length] (+)= the first elements of the rows of source [rows, wide]. One thread an element of the target.
extern "C" __global__ void take_rows(const float *__restrict__ source, float *__restrict__ target, unsigned length,
                                     unsigned wide, unsigned threads, unsigned accumulate) {
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= threads) return;
  const float value = source[static_cast<size_t>(thread / length) * wide + thread % length];
  target[thread] = accumulate ? target[thread] + value : value;
}
EXPORT_KERNEL(take_rows)

struct PatchMap {
  unsigned height, width, out_height, out_width;
};

// Images [N, height, width, 3] to rows [N * out_height * out_width, KERNEL * KERNEL * 3] with zeros up to the next multiple of 8. One
// thread 8 places of a row. What a row has of one line of the image is contiguous there.
template <unsigned KERNEL, unsigned STRIDE>
__device__ __forceinline__ void image_patches(const bf16 *images, bf16 *target, PatchMap map, unsigned threads) {
  constexpr unsigned CHANNELS = 3, LINE = KERNEL * CHANNELS, LENGTH = KERNEL * LINE, VECTORS = (LENGTH + 7) / 8;
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= threads) return;
  const unsigned first = thread % VECTORS * 8, pixel = thread / VECTORS;
  const unsigned column = pixel % map.out_width, row = pixel / map.out_width % map.out_height;
  const unsigned image = pixel / map.out_width / map.out_height;
  // Below zero these wrap around, beyond any image.
  const unsigned top = row * STRIDE - KERNEL / 2, left = (column * STRIDE - KERNEL / 2) * CHANNELS;
  const unsigned line = map.width * CHANNELS;
  const bf16 *source = images + static_cast<size_t>(image) * map.height * line;
  Vector<bf16, 8> vector;
#pragma unroll
  for (unsigned i = 0; i < 8; ++i) {
    const unsigned place = first + i, y = top + place / LINE, x = left + place % LINE;
    const bool there = place < LENGTH && y < map.height && x < line;
    vector.values[i] = there ? to_float(source[static_cast<size_t>(y) * line + x]) : 0.0f;
  }
  vector.store(target + static_cast<size_t>(thread) * 8);
}

#define IMAGE_PATCHES(KERNEL, STRIDE)                                                                                  \
  extern "C" __global__ void image_patches_##KERNEL##_##STRIDE(const bf16 *__restrict__ images,                        \
                                                               bf16 *__restrict__ target, unsigned height,             \
                                                               unsigned width, unsigned out_height,                    \
                                                               unsigned out_width, unsigned threads) {                 \
    image_patches<KERNEL, STRIDE>(images, target, {height, width, out_height, out_width}, threads);                    \
  }                                                                                                                    \
  EXPORT_KERNEL(image_patches_##KERNEL##_##STRIDE)
IMAGE_PATCHES(7, 2)
IMAGE_PATCHES(3, 1)
