// What all sweeps share. A sweep multiplies each of its rows with many columns, turns the products into weights, and sums the
// weighted columns:
//
//   the loss        rows are queries, columns negatives, weights a softmax whose sums are kept online
//   its gradient    rows are keys, columns the queries that met them, weights known from the loss
//
// Similarities are dot products as they are; `scale`, log2(e) / temperature, makes them exponents of 2.
#pragma once
#include "tensor_core.cuh"

// Values of a row that lie in shared memory at one time, and that one block sums.
constexpr unsigned PIECE = 128;

// A matrix in row-major order. `wide` tells that every row begins at a multiple of 16 bytes.
template <class T>
struct Matrix {
  const T *values;
  unsigned count, dim;
  bool wide;

  __device__ __forceinline__ const T *row(unsigned index) const { return values + size_t(index) * dim; }
};

// Columns [first, end) of a block, of which a row does not meet itself and its partner `half` places on, cyclically. With
// `half` of 0 it meets all of them.
struct Columns {
  unsigned first, end, half;

  __device__ __forceinline__ bool meet(unsigned row, unsigned column) const {
    const bool excluded = half > 0 && (column == row || column == row + half || column + half == row);
    return column < end && !excluded;
  }

  // Whether all rows meet all of the `count` columns from `start` on.
  __device__ __forceinline__ bool all_meet(unsigned start, unsigned count) const {
    return half == 0 && start + count <= end;
  }
};

__device__ __forceinline__ Columns columns_of_block(unsigned count, unsigned per_split, unsigned half) {
  const unsigned first = blockIdx.y * per_split;
  return Columns{first, count - first < per_split ? count : first + per_split, half};
}

// Softmax sums of one row over the columns so far (arXiv 1805.02867): relative to the largest similarity, which may grow.
struct RunningSums {
  float largest = -INFINITY;
  // Sum of 2^(scale * (similarity - largest)).
  float weight = 0.0f;
  // Plain sum of the similarities.
  float total = 0.0f;

  // Takes in the largest similarity of further columns; what was summed so far shrinks by the factor that is returned.
  __device__ __forceinline__ float raise(float candidate, float scale) {
    const float raised = fmaxf(largest, candidate);
    const float factor = raised > largest ? fast_exp2(scale * (largest - raised)) : 1.0f;
    largest = raised;
    weight *= factor;
    return factor;
  }

  // What similarities are relative to: anything finite before the first column that counts.
  __device__ __forceinline__ float shift() const { return largest == -INFINITY ? 0.0f : largest; }
};

// Sums of all rows of all splits, `[splits, 3, rows]`.
struct SumsTable {
  float *values;
  unsigned rows;

  __device__ __forceinline__ void write(unsigned row, const RunningSums &sums) const {
    float *place = values + size_t(blockIdx.y) * 3 * rows + row;
    place[0] = sums.largest;
    place[rows] = sums.weight;
    place[2 * size_t(rows)] = sums.total;
  }
};

// What the loss has found for each query, `[3, queries]`: the largest similarity, the coefficient over the softmax's sum, and
// the coefficient g / (temperature N).
struct KnownTable {
  const float *values;
  unsigned queries;

  struct Entry {
    float largest, coefficient;

    __device__ __forceinline__ float weight(float similarity, float scale) const {
      return coefficient * fast_exp2(scale * (similarity - largest));
    }
  };

  // Zeros for queries from `end` on.
  __device__ __forceinline__ Entry of(unsigned query, unsigned end) const {
    return query < end ? Entry{values[query], values[queries + query]} : Entry{0.0f, 0.0f};
  }
};

// Starts the copy of values [first_value, first_value + PIECE) of ROWS rows to shared memory, zeros where the matrix or the
// block's part of it ends. A row takes PIECE values and 16 bytes, so that reads of one place in neighbouring rows meet
// different banks.
template <class T>
constexpr unsigned PITCH = PIECE + Pack<T>::COUNT;

template <unsigned ROWS, unsigned THREADS, class T>
__device__ __forceinline__ void stage(T *shared, const Matrix<T> &matrix, unsigned first_row, unsigned end_row,
                                      unsigned first_value) {
  constexpr unsigned COUNT = Pack<T>::COUNT, PACKS = PIECE / COUNT;
  if (matrix.wide) {
    for (unsigned i = threadIdx.x; i < ROWS * PACKS; i += THREADS) {
      const unsigned row = i / PACKS, value = i % PACKS * COUNT;
      const bool inside = first_row + row < end_row && first_value + value < matrix.dim;
      const T *source = inside ? matrix.row(first_row + row) + first_value + value : matrix.values;
      copy_async(shared + row * PITCH<T> + value, source, inside);
    }
  } else {
    for (unsigned i = threadIdx.x; i < ROWS * PIECE; i += THREADS) {
      const unsigned row = i / PIECE, value = i % PIECE;
      const bool inside = first_row + row < end_row && first_value + value < matrix.dim;
      shared[row * PITCH<T> + value] = inside ? matrix.row(first_row + row)[first_value + value] : from_float<T>(0.0f);
    }
  }
  copy_commit();
}
