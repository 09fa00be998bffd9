// Brightness, contrast, saturation and hue of a pixel, as Pillow has them.
#pragma once
#include "view.cuh"

// A byte's way from its "degenerate" value (0) through itself (1) and beyond; the fraction is cut off.
__device__ __forceinline__ uint8_t blend(uint8_t degenerate, uint8_t value, float factor) {
  const float distance = static_cast<float>(value) - static_cast<float>(degenerate);
  return to_byte(__fadd_rn(degenerate, __fmul_rn(factor, distance)));
}

__device__ __forceinline__ Rgb blend_all(uint8_t degenerate, Rgb pixel, float factor) {
#pragma unroll
  for (unsigned channel = 0; channel < 3; ++channel)
    pixel.values[channel] = blend(degenerate, pixel.values[channel], factor);
  return pixel;
}

struct Hsv {
  uint8_t hue, saturation, value;
};

// Single-precision variables and double-precision constants: that decides where a value is cut off.
__device__ __forceinline__ Hsv to_hsv(Rgb pixel) {
  const uint8_t red = pixel.values[0], green = pixel.values[1], blue = pixel.values[2];
  const uint8_t most = red > green ? red : green, least = red < green ? red : green;
  const uint8_t largest = most > blue ? most : blue, smallest = least < blue ? least : blue;
  if (largest == smallest) return {0, 0, largest};
  const float spread = static_cast<float>(largest - smallest);
  const double to_red = static_cast<float>(largest - red) / spread;
  const double to_green = static_cast<float>(largest - green) / spread;
  const double to_blue = static_cast<float>(largest - blue) / spread;
  const double sector = red == largest     ? to_blue - to_green
                        : green == largest ? 2.0 + to_red - to_blue
                                           : 4.0 + to_green - to_red;
  const double turns = static_cast<double>(static_cast<float>(sector)) / 6.0 + 1.0;
  const float hue = static_cast<float>(turns >= 1.0 ? turns - 1.0 : turns);
  const float saturation = spread / static_cast<float>(largest);
  return {static_cast<uint8_t>(static_cast<double>(hue) * 255.0),
          static_cast<uint8_t>(static_cast<double>(saturation) * 255.0), largest};
}

// The value at a share of itself, rounded.
__device__ __forceinline__ uint8_t scaled(uint8_t value, float share) {
  return static_cast<uint8_t>(static_cast<double>(__fmul_rn(value, share)) + 0.5);
}

__device__ __forceinline__ Rgb from_hsv(Hsv pixel) {
  const uint8_t value = pixel.value;
  if (pixel.saturation == 0) return {{value, value, value}};
  const double position = __dmul_rn(pixel.hue, 6.0) / 255.0;
  const unsigned sector = static_cast<unsigned>(position);
  const float fraction = static_cast<float>(position - sector);
  const float strength = pixel.saturation / 255.0f;
  const uint8_t low = scaled(value, 1.0f - strength);
  const uint8_t falling = scaled(value, __fadd_rn(1.0f, -__fmul_rn(strength, fraction)));
  const uint8_t rising = scaled(value, __fadd_rn(1.0f, -__fmul_rn(strength, 1.0f - fraction)));
  switch (sector % 6) {
  case 0: return {{value, rising, low}};
  case 1: return {{falling, value, low}};
  case 2: return {{low, value, rising}};
  case 3: return {{low, falling, value}};
  case 4: return {{rising, low, value}};
  default: return {{value, low, falling}};
  }
}

// One adjustment; `mean` is the view's mean luminance, which a contrast wants.
__device__ __forceinline__ Rgb adjusted(Rgb pixel, uint32_t kind, uint32_t factor, uint8_t mean) {
  if (kind == BRIGHTNESS) return blend_all(0, pixel, __uint_as_float(factor));
  if (kind == CONTRAST) return blend_all(mean, pixel, __uint_as_float(factor));
  if (kind == SATURATION) return blend_all(luminance(pixel), pixel, __uint_as_float(factor));
  if (kind == HUE) {
    Hsv hsv = to_hsv(pixel);
    hsv.hue = static_cast<uint8_t>(hsv.hue + factor);
    return from_hsv(hsv);
  }
  return pixel;
}

// Where among the adjustments a contrast stands; MOST_ADJUSTMENTS for none.
__device__ __forceinline__ unsigned place_of_contrast(const View &view) {
  unsigned place = 0;
  while (place < MOST_ADJUSTMENTS && view.kinds[place] != CONTRAST) ++place;
  return place;
}
