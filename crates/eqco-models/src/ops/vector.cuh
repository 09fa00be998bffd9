// What a thread reads and writes at a time: 8 neighbouring elements.
#pragma once

#include "kernel.cuh"

// VECTOR elements as floats, by packs of 16 bytes where VECTOR allows. Addresses are multiples of 16 then.
template <class T, unsigned VECTOR>
struct Vector {
  static constexpr unsigned PACK = Pack<T>::COUNT;
  float values[VECTOR];

  __device__ __forceinline__ static Vector load(const T *source) {
    Vector vector;
    if (VECTOR % PACK == 0) {
#pragma unroll
      for (unsigned first = 0; first < VECTOR; first += PACK) {
        const Pack<T> pack = Pack<T>::load(source + first);
#pragma unroll
        for (unsigned i = 0; i < PACK && first + i < VECTOR; ++i) vector.values[first + i] = pack.values[i];
      }
    } else {
#pragma unroll
      for (unsigned i = 0; i < VECTOR; ++i) vector.values[i] = to_float(source[i]);
    }
    return vector;
  }

  __device__ __forceinline__ void store(T *target) const {
    if (VECTOR % PACK == 0) {
#pragma unroll
      for (unsigned first = 0; first < VECTOR; first += PACK) {
        Pack<T> pack;
#pragma unroll
        for (unsigned i = 0; i < PACK && first + i < VECTOR; ++i) pack.values[i] = values[first + i];
        pack.store(target + first);
      }
    } else {
#pragma unroll
      for (unsigned i = 0; i < VECTOR; ++i) target[i] = from_float<T>(values[i]);
    }
  }

  // The first `there` elements alone, the others are 0.
  __device__ __forceinline__ static Vector load_some(const T *source, unsigned there) {
    Vector vector;
#pragma unroll
    for (unsigned i = 0; i < VECTOR; ++i) vector.values[i] = i < there ? to_float(source[i]) : 0.0f;
    return vector;
  }

  __device__ __forceinline__ void store_some(T *target, unsigned there) const {
#pragma unroll
    for (unsigned i = 0; i < VECTOR; ++i)
      if (i < there) target[i] = from_float<T>(values[i]);
  }
};

// 8 elements of a flat array of `count`, from `first` on: whole packs where the addresses are `aligned` and 8 are left.
struct Eight {
  size_t first;
  unsigned there;
  bool whole;

  __device__ __forceinline__ static Eight of(size_t index, size_t count, bool aligned) {
    Eight eight;
    eight.first = index * 8;
    eight.there = count - eight.first < 8 ? static_cast<unsigned>(count - eight.first) : 8;
    eight.whole = aligned && eight.there == 8;
    return eight;
  }

  template <class T>
  __device__ __forceinline__ Vector<T, 8> load(const T *source) const {
    return whole ? Vector<T, 8>::load(source + first) : Vector<T, 8>::load_some(source + first, there);
  }

  template <class T>
  __device__ __forceinline__ void store(const Vector<T, 8> &vector, T *target) const {
    if (whole)
      vector.store(target + first);
    else
      vector.store_some(target + first, there);
  }
};

// Runs BODY for every group of 8 of `count` elements, `eight` being the group.
#define FOR_EIGHTS(COUNT, ALIGNED)                                                                                     \
  const size_t eights = (static_cast<size_t>(COUNT) + 7) / 8;                                                          \
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;                                                   \
  for (size_t index = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; index < eights; index += stride)     \
    if (const Eight eight = Eight::of(index, COUNT, ALIGNED); true)
