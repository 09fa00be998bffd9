// What is left of the adjustments from a contrast on, and the loss of colour. Views that are not blurred end here.
#include "adjust.cuh"

template <class T>
__device__ __forceinline__ void augment_adjust(const View *views, unsigned first_view, uint32_t *scratch, unsigned size,
                                               T *target, ThreeChannels channels) {
  const View &view = views[first_view + blockIdx.y];
  const unsigned contrast = place_of_contrast(view);
  uint8_t mean = 0;
  if (contrast < MOST_ADJUSTMENTS) {
    mean = static_cast<uint8_t>(static_cast<double>(scratch[view.luminance]) / static_cast<double>(size * size) + 0.5);
  }
  uint8_t *pixels = bytes_at(scratch, view.pixels);
  target += static_cast<uint64_t>(first_view + blockIdx.y) * size * size * 3;
  for (unsigned i = first_of_thread(); i < size * size; i += stride_of_threads()) {
    Rgb pixel = load_rgb(pixels + i * 3);
    for (unsigned k = contrast; k < MOST_ADJUSTMENTS; ++k) pixel = adjusted(pixel, view.kinds[k], view.factors[k], mean);
    if (view.grayscale) {
      const uint8_t grey = luminance(pixel);
      pixel = {{grey, grey, grey}};
    }
    if (view.half == 0) {
      finish(view, pixel, target, i, channels);
    } else {
      store_rgb(pixels + i * 3, pixel);
    }
  }
}

#define AUGMENT_ADJUST(SUFFIX, T)                                                                                      \
  extern "C" __global__ void augment_adjust_##SUFFIX(                                                                  \
      const View *__restrict__ views, unsigned first_view, uint32_t *scratch, unsigned size, T *__restrict__ target,   \
      float mean0, float mean1, float mean2, float deviation0, float deviation1, float deviation2) {                   \
    augment_adjust<T>(views, first_view, scratch, size, target,                                                        \
                      {{mean0, mean1, mean2}, {deviation0, deviation1, deviation2}});                                  \
  }                                                                                                                    \
  EXPORT_KERNEL(augment_adjust_##SUFFIX)
AUGMENT_ADJUST(f32, float)
AUGMENT_ADJUST(bf16, bf16)
