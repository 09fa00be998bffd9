// From bytes to normalised images.
#include "normalization.cuh"

template <class T>
__device__ __forceinline__ void normalize_bytes(const uint8_t *source, T *target, uint64_t count, ThreeChannels channels) {
  const uint64_t stride = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    target[i] = from_float<T>(channels.normalized(source[i], i % 3));
  }
}

#define NORMALIZE_BYTES(SUFFIX, T)                                                                                     \
  extern "C" __global__ void normalize_bytes_##SUFFIX(const uint8_t *__restrict__ source, T *__restrict__ target,      \
                                                      uint64_t count, float mean0, float mean1, float mean2,           \
                                                      float deviation0, float deviation1, float deviation2) {          \
    normalize_bytes<T>(source, target, count, {{mean0, mean1, mean2}, {deviation0, deviation1, deviation2}});          \
  }                                                                                                                    \
  EXPORT_KERNEL(normalize_bytes_##SUFFIX)
NORMALIZE_BYTES(f32, float)
NORMALIZE_BYTES(bf16, bf16)
