// CUDA's language as far as our kernels use it, for a C++ compiler: tests run the kernels' own source without a GPU.
//
// A block's threads are fibres that take turns on one thread of the system. They change at barriers and shuffles alone, and
// in another order from block to block, so that a barrier that is missing gives wrong numbers and one that not all threads
// reach is reported.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

struct dim3 {
  unsigned x, y, z;
};

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

namespace emulator {

extern dim3 thread_index, block_index, block_size, grid_size;

// Waits for all threads of the block, or of the warp.
void block_barrier();
void warp_barrier();

// Exchange of words among the 32 threads of a warp, valid between two of its barriers: WORDS_OF_LANE for each thread.
constexpr unsigned WORDS_OF_LANE = 4;
uint64_t *warp_words();
unsigned lane();

// The block's dynamic shared memory; it holds NaNs when a block begins.
void *dynamic_shared();

using Kernel = void (*)(void **arguments);

struct Registration {
  Registration(const char *name, Kernel kernel);
  const char *name;
  Kernel kernel;
  Registration *next;
};

template <class... A, size_t... I>
void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
  kernel(*reinterpret_cast<A *>(arguments[I])...);
}

template <class... A>
void call(void (*kernel)(A...), void **arguments) {
  call(kernel, arguments, std::index_sequence_for<A...>());
}

template <class T>
T exchange(T value, unsigned source) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "shuffles take words");
  uint64_t *words = warp_words();
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  words[lane()] = word;
  warp_barrier();
  word = words[source % 32];
  warp_barrier();
  std::memcpy(&value, &word, sizeof(T));
  return value;
}

} // namespace emulator

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// Blocks run one after the other.
#define __shared__ static
#define threadIdx (emulator::thread_index)
#define blockIdx (emulator::block_index)
#define blockDim (emulator::block_size)
#define gridDim (emulator::grid_size)

#define EXPORT_KERNEL(NAME)                                                                                            \
  static emulator::Registration registration_of_##NAME(#NAME, [](void **arguments) { emulator::call(NAME, arguments); });
#define DYNAMIC_SHARED(TYPE, NAME) TYPE *NAME = reinterpret_cast<TYPE *>(emulator::dynamic_shared())

inline void __syncthreads() { emulator::block_barrier(); }
inline void __syncwarp() { emulator::warp_barrier(); }
inline void __threadfence() {}

template <class T>
T __shfl_xor_sync(unsigned, T value, unsigned mask) {
  return emulator::exchange(value, emulator::lane() ^ mask);
}

template <class T>
T __shfl_sync(unsigned, T value, unsigned source) {
  return emulator::exchange(value, source);
}

template <class T>
T __shfl_down_sync(unsigned, T value, unsigned distance) {
  const unsigned source = emulator::lane() + distance;
  return emulator::exchange(value, source < 32 ? source : emulator::lane());
}

template <class T>
T atomicAdd(T *target, T value) {
  const T before = *target;
  *target = before + value;
  return before;
}

template <class T>
T atomicMax(T *target, T value) {
  const T before = *target;
  if (value > before) *target = value;
  return before;
}

// Each rounded by itself, never fused with another operation.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dmul_rn(double a, double b) { return a * b; }

inline float rsqrtf(float value) { return 1.0f / std::sqrt(value); }
inline float __expf(float value) { return std::exp(value); }
inline float fast_exp2(float value) { return std::exp2(value); }
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// The upper half of an f32, rounded to nearest even, as the hardware's.
struct bf16 {
  uint16_t bits;
};
inline float to_float(bf16 value) { return __uint_as_float(static_cast<unsigned>(value.bits) << 16); }
inline bf16 to_bf16(float value) {
  const unsigned bits = __float_as_uint(value);
  if (value != value) return bf16{static_cast<uint16_t>((bits >> 16) | 0x40)};
  return bf16{static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
