// Kernels over `[rows, channels]`: a thread keeps VECTOR neighbouring channels and walks down rows, so that loads of a warp are
// contiguous and what belongs to a channel stays in registers.
#pragma once

#include "vector.cuh"

// A vector has 8 channels, or a single one where channels are no multiple of 8. That it is the same for both types makes their
// sums add up in the same order.
//
// A grid of blocks of (x, y) threads: x over vectors of channels, y over rows; blocks along x over vectors, along y over
// rows, along z over groups of rows. A thread takes the rows from `first_row` to `end_row`, each `step` behind the one before.
struct Columns {
  unsigned channels, rows, first_channel, first_row, end_row, step;
  size_t base;

  // Blocks have bands of neighbouring rows, `band` of a group's `rows` each: they walk over memory from its beginning.
  template <unsigned VECTOR>
  __device__ __forceinline__ static Columns in_bands(unsigned channels, unsigned rows, unsigned band) {
    Columns columns = Columns::of<VECTOR>(channels, rows);
    columns.first_row = blockIdx.y * band + threadIdx.y;
    const unsigned end = (blockIdx.y + 1) * band;
    columns.end_row = end < rows ? end : rows;
    columns.step = blockDim.y;
    return columns;
  }

  // All blocks walk over memory together. With rows counted from the last one, the first pass over an array finds in the cache what
  // was written last, and leaves there what a pass from the first row on reads first.
  template <unsigned VECTOR>
  __device__ __forceinline__ static Columns together(unsigned channels, unsigned rows) {
    Columns columns = Columns::of<VECTOR>(channels, rows);
    columns.first_row = blockIdx.y * blockDim.y + threadIdx.y;
    columns.end_row = rows;
    columns.step = gridDim.y * blockDim.y;
    return columns;
  }

  template <unsigned VECTOR>
  __device__ __forceinline__ static Columns of(unsigned channels, unsigned rows) {
    Columns columns;
    columns.channels = channels;
    columns.rows = rows;
    columns.first_channel = (blockIdx.x * blockDim.x + threadIdx.x) * VECTOR;
    columns.base = static_cast<size_t>(blockIdx.z) * rows * channels;
    return columns;
  }

  __device__ __forceinline__ bool are_there() const { return first_channel < channels; }

  __device__ __forceinline__ size_t place(unsigned row) const {
    return base + static_cast<size_t>(row) * channels + first_channel;
  }

  // Of a row that is counted from the last one.
  __device__ __forceinline__ size_t place_from_end(unsigned row) const { return place(rows - 1 - row); }

  // Where per-channel values of this group begin for this thread.
  __device__ __forceinline__ unsigned constants() const { return blockIdx.z * channels + first_channel; }
};

// Constants of VECTOR channels.
template <unsigned VECTOR>
__device__ __forceinline__ void load_constants(const float *source, float (&values)[VECTOR]) {
#pragma unroll
  for (unsigned i = 0; i < VECTOR; ++i) values[i] = source[i];
}

// Adds up two sums a channel over the threads of a block that share a channel, in a fixed order, and writes them to
// `partial[band][2][groups * channels]`. Needs shared memory for 2 * VECTOR floats a thread.
template <unsigned VECTOR>
__device__ __forceinline__ void store_partial_sums(const Columns &columns, const float (&first)[VECTOR],
                                                   const float (&second)[VECTOR], float *partial) {
  DYNAMIC_SHARED(float, sums);
  const unsigned threads = blockDim.x * blockDim.y, self = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
  for (unsigned i = 0; i < VECTOR; ++i) {
    sums[i * threads + self] = first[i];
    sums[(VECTOR + i) * threads + self] = second[i];
  }
  __syncthreads();
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    if (threadIdx.y < half) {
#pragma unroll
      for (unsigned i = 0; i < 2 * VECTOR; ++i) sums[i * threads + self] += sums[i * threads + self + half * blockDim.x];
    }
    __syncthreads();
  }
  if (threadIdx.y == 0 && columns.are_there()) {
    const size_t all = static_cast<size_t>(gridDim.z) * columns.channels;
    float *target = partial + blockIdx.y * 2 * all + columns.constants();
#pragma unroll
    for (unsigned i = 0; i < VECTOR; ++i) {
      target[i] = sums[i * threads + self];
      target[all + i] = sums[(VECTOR + i) * threads + self];
    }
  }
}

// The sums of all bands for one column of `[groups * channels]`, added in f64 and in a fixed order by the threads of a block
// that share threadIdx.x. Valid in the threads with threadIdx.y == 0. Needs shared memory for 2 doubles a thread.
struct BandSums {
  double first, second;
};

__device__ __forceinline__ BandSums sum_bands(const float *partial, unsigned bands, unsigned column, unsigned columns) {
  DYNAMIC_SHARED(double, sums);
  const unsigned threads = blockDim.x * blockDim.y, self = threadIdx.y * blockDim.x + threadIdx.x;
  double first = 0.0, second = 0.0;
  if (column < columns) {
    for (unsigned band = threadIdx.y; band < bands; band += blockDim.y) {
      const float *source = partial + static_cast<size_t>(band) * 2 * columns + column;
      first += source[0];
      second += source[columns];
    }
  }
  sums[self] = first;
  sums[threads + self] = second;
  __syncthreads();
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    if (threadIdx.y < half) {
      sums[self] += sums[self + half * blockDim.x];
      sums[threads + self] += sums[threads + self + half * blockDim.x];
    }
    __syncthreads();
  }
  return BandSums{sums[threadIdx.x], sums[threads + threadIdx.x]};
}
