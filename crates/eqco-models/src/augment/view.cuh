// A view to be made, as the host describes it, and what its kernels share.
//
// All arithmetic is that of the transforms on the CPU, operation by operation, so that the bytes are the same ones. What a
// compiler may fuse into one rounding is written with functions that it may not.
#pragma once
#include "../normalization.cuh"

constexpr unsigned MOST_ADJUSTMENTS = 4;

enum AdjustmentKind : uint32_t { NO_ADJUSTMENT = 0, BRIGHTNESS = 1, CONTRAST = 2, SATURATION = 3, HUE = 4 };

// A row of the table. Places in scratch memory are counted in words of 32 bits from its start, `kernel` from the table's.
struct View {
  // Of the source image: its first pixel among those of all images, and its width.
  uint32_t first_pixel, image_width;
  // The part of it that is resized.
  uint32_t left, top, width, height;
  // Tables of weights, see Axis.
  uint32_t columns, rows;
  // Bytes of three channels: [height, size] after the first pass of the resize, [size, size] after the second.
  uint32_t between, pixels;
  // Sum of the luminance of all pixels, one word.
  uint32_t luminance;
  // Floats of three channels, [size, size], between the passes of the blur.
  uint32_t blurred;
  // The blur's weights, centre first, and their number without the centre: 0 for no blur.
  uint32_t kernel, half;
  // Values from here on are inverted; 256 for none.
  uint32_t solarize;
  uint32_t flip, grayscale;
  // In the order in which they are applied; NO_ADJUSTMENT ends them. Factors are floats, a hue's is a whole number.
  uint32_t kinds[MOST_ADJUSTMENTS], factors[MOST_ADJUSTMENTS];
};

struct Rgb {
  uint8_t values[3];
};

__device__ __forceinline__ Rgb load_rgb(const uint8_t *source) { return {{source[0], source[1], source[2]}}; }

__device__ __forceinline__ void store_rgb(uint8_t *target, Rgb pixel) {
#pragma unroll
  for (unsigned channel = 0; channel < 3; ++channel) target[channel] = pixel.values[channel];
}

// Pillow's mode "L": ITU-R 601-2 in 16-bit fixed point, rounded.
__device__ __forceinline__ uint8_t luminance(Rgb pixel) {
  const unsigned sum = pixel.values[0] * 19595u + pixel.values[1] * 38470u + pixel.values[2] * 7471u + 0x8000u;
  return static_cast<uint8_t>(sum >> 16);
}

// Cuts off the fraction, and what lies outside 0 to 255.
__device__ __forceinline__ uint8_t to_byte(float value) { return static_cast<uint8_t>(fminf(fmaxf(value, 0.0f), 255.0f)); }

__device__ __forceinline__ uint8_t *bytes_at(uint32_t *scratch, uint32_t place) {
  return reinterpret_cast<uint8_t *>(scratch + place);
}

// Of a loop over the pixels of a view, which all blocks with the same blockIdx.y share.
__device__ __forceinline__ unsigned first_of_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ unsigned stride_of_threads() { return gridDim.x * blockDim.x; }

// The last steps of a view: solarise, normalise, write. `pixel` counts from the view's first.
template <class T>
__device__ __forceinline__ void finish(const View &view, Rgb rgb, T *target, unsigned pixel, const ThreeChannels &channels) {
#pragma unroll
  for (unsigned channel = 0; channel < 3; ++channel) {
    const uint8_t byte = rgb.values[channel];
    const uint8_t value = byte >= view.solarize ? static_cast<uint8_t>(255 - byte) : byte;
    target[pixel * 3 + channel] = from_float<T>(channels.normalized(value, channel));
  }
}
