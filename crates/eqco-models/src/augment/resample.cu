// Antialiased bilinear resize of a part of an image, as Pillow does it: a table of fixed-point weights for each axis, then rows,
// then columns, with bytes between. The second pass flips, applies the adjustments that come before a contrast, and sums the
// luminance that the contrast wants.
#include "adjust.cuh"

// Pillow's choice: 8 bits of pixel and 2 of headroom are left of 32.
constexpr unsigned WEIGHT_BITS = 22;

// The table of one axis: for each of `size` places in the result the first pixel that it is made of and their number, then the
// weights of all first pixels, of all second ones, and so on.
struct Axis {
  uint32_t *words;
  unsigned size;

  __device__ __forceinline__ uint32_t &first(unsigned place) const { return words[place]; }
  __device__ __forceinline__ uint32_t &count(unsigned place) const { return words[size + place]; }
  __device__ __forceinline__ uint32_t &weight(unsigned place, unsigned pixel) const {
    return words[(2 + pixel) * size + place];
  }
};

// A triangle whose width grows with the scale where the image shrinks.
struct Triangle {
  double center, stretch;

  __device__ __forceinline__ double at(unsigned pixel) const {
    return fmax(1.0 - fabs((pixel - center + 0.5) / stretch), 0.0);
  }
};

__device__ __forceinline__ void fill_axis(const Axis &axis, unsigned place, unsigned input) {
  const double scale = static_cast<double>(input) / static_cast<double>(axis.size);
  const Triangle triangle{__dmul_rn(place + 0.5, scale), fmax(scale, 1.0)};
  const unsigned first = static_cast<unsigned>(fmax(triangle.center - triangle.stretch + 0.5, 0.0));
  const unsigned reach = static_cast<unsigned>(triangle.center + triangle.stretch + 0.5);
  const unsigned count = (reach < input ? reach : input) - first;
  double total = 0.0;
  for (unsigned pixel = 0; pixel < count; ++pixel) total += triangle.at(first + pixel);
  axis.first(place) = first;
  axis.count(place) = count;
  for (unsigned pixel = 0; pixel < count; ++pixel) {
    // Exact but for the sum: the factor is a power of two.
    const double weight = triangle.at(first + pixel) / total * (1u << WEIGHT_BITS) + 0.5;
    axis.weight(place, pixel) = static_cast<uint32_t>(weight);
  }
}

// Both tables of every view, one thread a place; and no luminance yet.
extern "C" __global__ void augment_axes(const View *__restrict__ views, unsigned first_view, uint32_t *scratch, unsigned size) {
  const View &view = views[first_view + blockIdx.y];
  for (unsigned i = first_of_thread(); i < 2 * size; i += stride_of_threads()) {
    if (i < size) {
      fill_axis({scratch + view.columns, size}, i, view.width);
    } else {
      fill_axis({scratch + view.rows, size}, i - size, view.height);
    }
    if (i == 0) scratch[view.luminance] = 0;
  }
}
EXPORT_KERNEL(augment_axes)

// The weighted sum of pixels that lie `step` bytes apart.
__device__ __forceinline__ Rgb weighted_sum(const Axis &axis, unsigned place, const uint8_t *pixels, uint64_t step) {
  int sums[3] = {1 << (WEIGHT_BITS - 1), 1 << (WEIGHT_BITS - 1), 1 << (WEIGHT_BITS - 1)};
  const unsigned count = axis.count(place);
  const uint8_t *pixel = pixels + axis.first(place) * step;
  for (unsigned i = 0; i < count; ++i, pixel += step) {
    const int weight = static_cast<int>(axis.weight(place, i));
#pragma unroll
    for (unsigned channel = 0; channel < 3; ++channel) sums[channel] += pixel[channel] * weight;
  }
  Rgb sum;
#pragma unroll
  for (unsigned channel = 0; channel < 3; ++channel) {
    // No sum is negative.
    const int byte = sums[channel] >> WEIGHT_BITS;
    sum.values[channel] = static_cast<uint8_t>(byte < 255 ? byte : 255);
  }
  return sum;
}

// The rows: [height, width] of the source becomes [height, size].
extern "C" __global__ void augment_resample_rows(const uint8_t *__restrict__ source, const View *__restrict__ views,
                                                 unsigned first_view, uint32_t *scratch, unsigned size) {
  const View &view = views[first_view + blockIdx.y];
  const Axis columns{scratch + view.columns, size};
  uint8_t *between = bytes_at(scratch, view.between);
  for (unsigned i = first_of_thread(); i < view.height * size; i += stride_of_threads()) {
    const uint64_t row = view.first_pixel + static_cast<uint64_t>(view.top + i / size) * view.image_width + view.left;
    store_rgb(between + static_cast<uint64_t>(i) * 3, weighted_sum(columns, i % size, source + row * 3, 3));
  }
}
EXPORT_KERNEL(augment_resample_rows)

// The columns: [height, size] becomes [size, size].
extern "C" __global__ void augment_resample_columns(const View *__restrict__ views, unsigned first_view, uint32_t *scratch,
                                                    unsigned size) {
  const View &view = views[first_view + blockIdx.y];
  const Axis rows{scratch + view.rows, size};
  const uint8_t *between = bytes_at(scratch, view.between);
  uint8_t *pixels = bytes_at(scratch, view.pixels);
  const unsigned contrast = place_of_contrast(view);
  unsigned sum = 0;
  for (unsigned i = first_of_thread(); i < size * size; i += stride_of_threads()) {
    const unsigned row = i / size, column = i % size;
    Rgb pixel = weighted_sum(rows, row, between + column * 3, static_cast<uint64_t>(size) * 3);
    for (unsigned k = 0; k < contrast; ++k) pixel = adjusted(pixel, view.kinds[k], view.factors[k], 0);
    store_rgb(pixels + (row * size + (view.flip ? size - 1 - column : column)) * 3, pixel);
    sum += luminance(pixel);
  }
  if (contrast == MOST_ADJUSTMENTS) return;
  // Whole numbers: their sum does not depend on the order.
  sum = warp_sum(sum);
  if (threadIdx.x % WARP == 0) atomicAdd(scratch + view.luminance, sum);
}
EXPORT_KERNEL(augment_resample_columns)
