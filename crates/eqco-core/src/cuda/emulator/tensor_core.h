// Tensor cores and asynchronous copies for the emulator: see tensor_core.cuh for what each does.
#pragma once

#include "emulator.h"

namespace emulator {

// What one thread of a warp brings to a product.
struct Fragments {
  unsigned left[4], right[2];
};
static_assert(sizeof(Fragments) <= WORDS_OF_LANE * sizeof(uint64_t), "fits a lane's words");

inline float bf16_of(unsigned pair, unsigned place) { return to_float(bf16{static_cast<uint16_t>(pair >> (16 * place))}); }

// All of `mine` of the warp's threads, valid between two barriers.
template <class T>
const T &of_lane(unsigned lane) {
  return *reinterpret_cast<const T *>(warp_words() + lane * WORDS_OF_LANE);
}

template <class T>
void show(const T &mine) {
  std::memcpy(warp_words() + lane() * WORDS_OF_LANE, &mine, sizeof(T));
  warp_barrier();
}

// Element (row, k) of the 16x16 left side, and (k, column) of the 16x8 right side.
inline float left_element(unsigned row, unsigned k) {
  const unsigned *words = of_lane<Fragments>(row % 8 * 4 + k % 8 / 2).left;
  return bf16_of(words[row / 8 + 2 * (k / 8)], k % 2);
}
inline float right_element(unsigned k, unsigned column) {
  return bf16_of(of_lane<Fragments>(column * 4 + k % 8 / 2).right[k / 8], k % 2);
}

inline void load_four(unsigned (&pairs)[4], const bf16 *row, bool transposed) {
  show(row);
  const unsigned across = lane() / 4, along = 2 * (lane() % 4);
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    bf16 pair[2];
    for (unsigned i = 0; i < 2; ++i) {
      const unsigned r = transposed ? along + i : across, c = transposed ? across : along + i;
      pair[i] = of_lane<const bf16 *>(matrix * 8 + r)[c];
    }
    pairs[matrix] = pair[0].bits | static_cast<unsigned>(pair[1].bits) << 16;
  }
  // Hardware reads 16 bytes a row at a multiple of 16; another address ends the test here.
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) __builtin_trap();
  warp_barrier();
}

} // namespace emulator

inline void mma_bf16(float (&sum)[4], const unsigned (&left)[4], const unsigned (&right)[2]) {
  using namespace emulator;
  Fragments mine;
  std::memcpy(mine.left, left, sizeof left);
  std::memcpy(mine.right, right, sizeof right);
  show(mine);
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane() / 4 + 8 * (i / 2), column = 2 * (lane() % 4) + i % 2;
    float products = 0.0f;
    for (unsigned k = 0; k < 16; ++k) products += left_element(row, k) * right_element(k, column);
    sum[i] += products;
  }
  warp_barrier();
}

inline void load_matrices(unsigned (&pairs)[4], const bf16 *row) { emulator::load_four(pairs, row, false); }
inline void load_transposed(unsigned (&pairs)[4], const bf16 *row) { emulator::load_four(pairs, row, true); }

inline unsigned bf16_pair(float first, float second) {
  return to_bf16(first).bits | static_cast<unsigned>(to_bf16(second).bits) << 16;
}

// Copies at once: that a wait is missing goes unnoticed here.
inline void copy_async(void *shared, const void *source, bool wanted) {
  if (reinterpret_cast<uintptr_t>(shared) % 16 != 0) __builtin_trap();
  if (!wanted) {
    std::memset(shared, 0, 16);
    return;
  }
  if (reinterpret_cast<uintptr_t>(source) % 16 != 0) __builtin_trap();
  std::memcpy(shared, source, 16);
}
inline void copy_commit() {}
template <int PENDING>
void copy_wait() {}
