// A Gaussian blur: rows to floats, then columns to bytes; borders are reflected without repeating the edge. Views that are not
// blurred have left already.
#include "view.cuh"

__device__ __forceinline__ unsigned reflected(int position, int length) {
  const int period = length > 1 ? 2 * (length - 1) : 2;
  int inside = position % period;
  if (inside < 0) inside += period;
  if (inside > period - inside) inside = period - inside;
  return inside < length ? inside : length - 1;
}

// One value of three channels, blurred along an axis of `size` places that lie `step` elements apart.
template <class V>
__device__ __forceinline__ void blur_along(float (&sums)[3], const V *line, unsigned place, unsigned size, unsigned step,
                                           const uint32_t *kernel, unsigned half) {
#pragma unroll
  for (unsigned channel = 0; channel < 3; ++channel)
    sums[channel] = __fmul_rn(__uint_as_float(kernel[0]), line[place * step + channel]);
  for (unsigned offset = 1; offset <= half; ++offset) {
    const float weight = __uint_as_float(kernel[offset]);
    const V *before = line + reflected(static_cast<int>(place) - static_cast<int>(offset), size) * step;
    const V *after = line + reflected(place + offset, size) * step;
#pragma unroll
    for (unsigned channel = 0; channel < 3; ++channel) {
      const float pair = static_cast<float>(before[channel]) + static_cast<float>(after[channel]);
      sums[channel] = __fadd_rn(sums[channel], __fmul_rn(weight, pair));
    }
  }
}

extern "C" __global__ void augment_blur_rows(const View *__restrict__ views, unsigned first_view, uint32_t *scratch,
                                             unsigned size) {
  const View &view = views[first_view + blockIdx.y];
  if (view.half == 0) return;
  const uint32_t *kernel = reinterpret_cast<const uint32_t *>(views) + view.kernel;
  const uint8_t *pixels = bytes_at(scratch, view.pixels);
  float *blurred = reinterpret_cast<float *>(scratch + view.blurred);
  for (unsigned i = first_of_thread(); i < size * size; i += stride_of_threads()) {
    float sums[3];
    blur_along(sums, pixels + i / size * size * 3, i % size, size, 3, kernel, view.half);
#pragma unroll
    for (unsigned channel = 0; channel < 3; ++channel) blurred[i * 3 + channel] = sums[channel];
  }
}
EXPORT_KERNEL(augment_blur_rows)

template <class T>
__device__ __forceinline__ void augment_blur_columns(const View *views, unsigned first_view, uint32_t *scratch,
                                                     unsigned size, T *target, ThreeChannels channels) {
  const View &view = views[first_view + blockIdx.y];
  if (view.half == 0) return;
  const uint32_t *kernel = reinterpret_cast<const uint32_t *>(views) + view.kernel;
  const float *blurred = reinterpret_cast<const float *>(scratch + view.blurred);
  target += static_cast<uint64_t>(first_view + blockIdx.y) * size * size * 3;
  for (unsigned i = first_of_thread(); i < size * size; i += stride_of_threads()) {
    float sums[3];
    blur_along(sums, blurred + i % size * 3, i / size, size, size * 3, kernel, view.half);
    Rgb pixel;
#pragma unroll
    for (unsigned channel = 0; channel < 3; ++channel) pixel.values[channel] = to_byte(sums[channel] + 0.5f);
    finish(view, pixel, target, i, channels);
  }
}

#define AUGMENT_BLUR_COLUMNS(SUFFIX, T)                                                                                \
  extern "C" __global__ void augment_blur_columns_##SUFFIX(                                                            \
      const View *__restrict__ views, unsigned first_view, uint32_t *scratch, unsigned size, T *__restrict__ target,   \
      float mean0, float mean1, float mean2, float deviation0, float deviation1, float deviation2) {                   \
    augment_blur_columns<T>(views, first_view, scratch, size, target,                                                  \
                            {{mean0, mean1, mean2}, {deviation0, deviation1, deviation2}});                            \
  }                                                                                                                    \
  EXPORT_KERNEL(augment_blur_columns_##SUFFIX)
AUGMENT_BLUR_COLUMNS(f32, float)
AUGMENT_BLUR_COLUMNS(bf16, bf16)
