// What our kernels are written against: CUDA when nvcc compiles, the emulator of the tests when a C++ compiler does.
#pragma once

#ifdef EQCO_EMULATED
#include "emulator/emulator.h"
#else
#include <cuda_bf16.h>
#include <cstdint>

using bf16 = __nv_bfloat16;
__device__ __forceinline__ float to_float(bf16 value) { return __bfloat162float(value); }
__device__ __forceinline__ bf16 to_bf16(float value) { return __float2bfloat16(value); }

// 2^x within 2 units in the last place; 0 below 2^-126.
__device__ __forceinline__ float fast_exp2(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}

// Makes a kernel known to the emulator; CUDA finds kernels by name.
#define EXPORT_KERNEL(NAME)
#define DYNAMIC_SHARED(TYPE, NAME)                                                                                     \
  extern __shared__ __align__(128) unsigned char eqco_dynamic_shared[];                                                \
  TYPE *NAME = reinterpret_cast<TYPE *>(eqco_dynamic_shared)
#endif

constexpr unsigned WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ __forceinline__ float to_float(float value) { return value; }

template <class T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) { return value; }
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float value) { return to_bf16(value); }

// 16 bytes of T as floats: the widest load that a thread has. Addresses are multiples of 16.
template <class T>
struct Pack {
  static constexpr unsigned COUNT = 16 / sizeof(T);
  float values[COUNT];

  __device__ __forceinline__ static Pack load(const T *source) {
    union {
      uint4 words;
      T elements[COUNT];
    } raw;
    raw.words = *reinterpret_cast<const uint4 *>(source);
    Pack pack;
#pragma unroll
    for (unsigned i = 0; i < COUNT; ++i) pack.values[i] = to_float(raw.elements[i]);
    return pack;
  }

  __device__ __forceinline__ void store(T *target) const {
    union {
      uint4 words;
      T elements[COUNT];
    } raw;
#pragma unroll
    for (unsigned i = 0; i < COUNT; ++i) raw.elements[i] = from_float<T>(values[i]);
    *reinterpret_cast<uint4 *>(target) = raw.words;
  }
};

template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (unsigned mask = WARP / 2; mask > 0; mask /= 2) value += __shfl_xor_sync(ALL_LANES, value, mask);
  return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (unsigned mask = WARP / 2; mask > 0; mask /= 2) value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, mask));
  return value;
}
