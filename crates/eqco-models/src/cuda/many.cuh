// One launch over many arrays: a block takes one piece of one of them.
#pragma once

#include "vector.cuh"

// Elements of a piece: what a block of 256 threads does in two rounds of 8.
constexpr unsigned PIECE = 4096;
constexpr unsigned MOST_ARRAYS = 4;

// Arrays of `count` elements that belong together, and a number of their own.
struct Arrays {
  uint64_t addresses[MOST_ARRAYS];
  uint64_t count;
  float number;
  unsigned aligned;

  __device__ __forceinline__ float *array(unsigned index) const { return reinterpret_cast<float *>(addresses[index]); }
};

struct Piece {
  unsigned arrays, first;
};

// Runs BODY for every group of 8 elements of this block's piece: `of` are its arrays, `eight` the group.
#define FOR_PIECE(TABLE, PIECES)                                                                                       \
  const Piece piece = (PIECES)[blockIdx.x];                                                                            \
  const Arrays of = (TABLE)[piece.arrays];                                                                             \
  const uint64_t left = of.count - piece.first, length = left < PIECE ? left : PIECE;                                  \
  for (unsigned index = threadIdx.x; index * 8 < length; index += blockDim.x)                                          \
    if (const Eight eight = Eight::of(piece.first / 8 + index, of.count, of.aligned); true)
