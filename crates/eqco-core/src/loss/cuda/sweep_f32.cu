// Sweeps over columns that all rows share, in f32. A block of 256 threads takes 64 rows and 64 columns at a time. A thread
// computes 4 by 4 similarities, and then sums, for the same 4 rows, 8 values of the weighted columns.
#include "weights.cuh"

namespace sweep_f32 {

constexpr unsigned THREADS = 256, ROWS = 64, SPAN = 64, SHARERS = 16;
// Of a row of weights: neighbouring rows begin 4 banks apart.
constexpr unsigned WEIGHTS_PITCH = SPAN + 4;
constexpr unsigned PACK = Pack<float>::COUNT;

struct Tile {
  static constexpr unsigned ROWS = 4, COLUMNS = 4, SHARERS = sweep_f32::SHARERS, SPAN = sweep_f32::SPAN;
  float values[ROWS][COLUMNS];

  __device__ __forceinline__ static unsigned row(unsigned i) { return threadIdx.x / SHARERS + 16 * i; }
  __device__ __forceinline__ static unsigned column(unsigned j) { return threadIdx.x % SHARERS + 16 * j; }
  __device__ __forceinline__ float &at(unsigned i, unsigned j) { return values[i][j]; }
};

// Sums of weighted columns: for each row of the tile two packs of values, 64 apart.
struct Sums {
  static constexpr unsigned PACKS = PIECE / (SHARERS * PACK);
  float values[Tile::ROWS][PACKS][PACK];

  __device__ __forceinline__ static unsigned value(unsigned pack) { return (threadIdx.x % SHARERS + SHARERS * pack) * PACK; }
};

// tile += the products of PIECE values of rows and columns.
__device__ __forceinline__ void add_similarities(Tile &tile, const float *rows, const float *columns) {
#pragma unroll 4
  for (unsigned d = 0; d < PIECE; d += PACK) {
    Pack<float> row[Tile::ROWS], column[Tile::COLUMNS];
#pragma unroll
    for (unsigned i = 0; i < Tile::ROWS; ++i) row[i] = Pack<float>::load(rows + Tile::row(i) * PITCH<float> + d);
#pragma unroll
    for (unsigned j = 0; j < Tile::COLUMNS; ++j) column[j] = Pack<float>::load(columns + Tile::column(j) * PITCH<float> + d);
#pragma unroll
    for (unsigned i = 0; i < Tile::ROWS; ++i)
#pragma unroll
      for (unsigned j = 0; j < Tile::COLUMNS; ++j)
#pragma unroll
        for (unsigned k = 0; k < PACK; ++k) tile.at(i, j) += row[i].values[k] * column[j].values[k];
  }
}

// sums = factors * sums + weights * columns. Weights go through shared memory, among the threads of one row alone.
__device__ __forceinline__ void add_weighted(Sums &sums, Tile &weights, const float (&factors)[Tile::ROWS], float *shared,
                                             const float *columns) {
#pragma unroll
  for (unsigned i = 0; i < Tile::ROWS; ++i) {
#pragma unroll
    for (unsigned j = 0; j < Tile::COLUMNS; ++j) shared[Tile::row(i) * WEIGHTS_PITCH + Tile::column(j)] = weights.at(i, j);
#pragma unroll
    for (unsigned p = 0; p < Sums::PACKS; ++p)
#pragma unroll
      for (unsigned k = 0; k < PACK; ++k) sums.values[i][p][k] *= factors[i];
  }
  __syncwarp();
#pragma unroll 4
  for (unsigned column = 0; column < SPAN; ++column) {
    Pack<float> packs[Sums::PACKS];
#pragma unroll
    for (unsigned p = 0; p < Sums::PACKS; ++p)
      packs[p] = Pack<float>::load(columns + column * PITCH<float> + Sums::value(p));
#pragma unroll
    for (unsigned i = 0; i < Tile::ROWS; ++i) {
      const float weight = shared[Tile::row(i) * WEIGHTS_PITCH + column];
#pragma unroll
      for (unsigned p = 0; p < Sums::PACKS; ++p)
#pragma unroll
        for (unsigned k = 0; k < PACK; ++k) sums.values[i][p][k] += weight * packs[p].values[k];
    }
  }
  __syncwarp();
}

__device__ __forceinline__ void write(const Sums &sums, float *target, const Matrix<float> &rows, unsigned first_row,
                                      unsigned first_value) {
#pragma unroll
  for (unsigned i = 0; i < Tile::ROWS; ++i) {
    const unsigned row = first_row + Tile::row(i);
    float *place = target + (size_t(blockIdx.y) * rows.count + row) * rows.dim;
#pragma unroll
    for (unsigned p = 0; p < Sums::PACKS; ++p)
#pragma unroll
      for (unsigned k = 0; k < PACK; ++k) {
        const unsigned value = first_value + Sums::value(p) + k;
        if (row < rows.count && value < rows.dim) place[value] = sums.values[i][p][k];
      }
  }
}

// Block (x, y, z) takes the x-th ROWS rows, the y-th part of the columns and the z-th PIECE values of the weighted sum.
template <class Weights>
__device__ void sweep(const Matrix<float> &rows, const Matrix<float> &columns, const Columns &part, float scale,
                      Weights weights, float *target) {
  DYNAMIC_SHARED(float, row_values);
  float *column_values = row_values + ROWS * PITCH<float>, *weight_values = column_values + SPAN * PITCH<float>;
  const unsigned first_row = blockIdx.x * ROWS, own = blockIdx.z * PIECE, last = (rows.dim - 1) / PIECE * PIECE;
  Sums sums = {};
  for (unsigned first = part.first; first < part.end; first += SPAN) {
    Tile tile = {};
    for (unsigned piece = 0; piece <= last; piece += PIECE) {
      __syncthreads();
      if (last > 0 || first == part.first) stage<ROWS, THREADS>(row_values, rows, first_row, rows.count, piece);
      stage<SPAN, THREADS>(column_values, columns, first, part.end, piece);
      copy_wait<0>();
      __syncthreads();
      add_similarities(tile, row_values, column_values);
    }
    if (own != last) {
      __syncthreads();
      stage<SPAN, THREADS>(column_values, columns, first, part.end, own);
      copy_wait<0>();
      __syncthreads();
    }
    float factors[Tile::ROWS];
    weights.apply(tile, part, first_row, first, scale, factors);
    add_weighted(sums, tile, factors, weight_values, column_values);
  }
  weights.finish(first_row, rows.count);
  write(sums, target, rows, first_row, own);
}

} // namespace sweep_f32

extern "C" __global__ void __launch_bounds__(sweep_f32::THREADS, 2)
    shared_sweep_f32(const float *queries, const float *negatives, unsigned query_count, unsigned negative_count,
                     unsigned dim, unsigned wide, unsigned per_split, unsigned half, float scale, float *sums,
                     float *weighted) {
  const Columns part = columns_of_block(negative_count, per_split, half);
  sweep_f32::sweep(Matrix<float>{queries, query_count, dim, wide != 0}, Matrix<float>{negatives, negative_count, dim, wide != 0},
                   part, scale, OnlineWeights<sweep_f32::Tile>(sums, negative_count), weighted);
}
EXPORT_KERNEL(shared_sweep_f32)

extern "C" __global__ void __launch_bounds__(sweep_f32::THREADS, 2)
    shared_gradient_f32(const float *negatives, const float *queries, unsigned negative_count, unsigned query_count,
                        unsigned dim, unsigned wide, unsigned per_split, unsigned half, float scale, const float *known,
                        float *target) {
  const Columns part = columns_of_block(query_count, per_split, half);
  sweep_f32::sweep(Matrix<float>{negatives, negative_count, dim, wide != 0}, Matrix<float>{queries, query_count, dim, wide != 0},
                   part, scale, KnownWeights<sweep_f32::Tile>(known, query_count), target);
}
EXPORT_KERNEL(shared_gradient_f32)
