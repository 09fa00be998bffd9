// From a byte to the value of a normalised image: (byte / 255 - mean) / deviation, by channel of three.
#pragma once
#include "kernel.cuh"

struct ThreeChannels {
  float mean[3], deviation[3];

  __device__ __forceinline__ float normalized(uint8_t byte, unsigned channel) const {
    return (byte / 255.0f - mean[channel]) / deviation[channel];
  }
};
