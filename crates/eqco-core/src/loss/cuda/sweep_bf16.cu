// Sweeps over columns that all rows share, bf16 on tensor cores. A block of 4 warps takes 128 rows and 64 columns at a time.
// A warp has 32 rows: what it reads of the columns serves two tiles of 16 rows, so that shared memory keeps up with the
// products. Weights are rounded to bf16 where they lie: a sum of the first product has the layout of a factor of the second.
#include "weights.cuh"

namespace sweep_bf16 {

constexpr unsigned THREADS = 128, ROWS = 128, SPAN = 64;
// Sizes of a product on tensor cores.
constexpr unsigned M = 16, N = 8, K = 16;
constexpr unsigned WARP_ROWS = ROWS / (THREADS / WARP), TALL = WARP_ROWS / M;

__device__ __forceinline__ unsigned lane() { return threadIdx.x % WARP; }
__device__ __forceinline__ unsigned row_of_warp() { return threadIdx.x / WARP * WARP_ROWS; }

struct Tile {
  static constexpr unsigned SPAN = sweep_bf16::SPAN, ROWS = 2 * TALL, COLUMNS = sweep_bf16::SPAN / 4, SHARERS = 4;
  float sums[TALL][sweep_bf16::SPAN / N][4];

  __device__ __forceinline__ static unsigned row(unsigned i) { return row_of_warp() + lane() / 4 + 8 * i; }
  __device__ __forceinline__ static unsigned column(unsigned j) { return 2 * (lane() % 4) + j % 2 + 8 * (j / 2); }
  __device__ __forceinline__ float &at(unsigned i, unsigned j) { return sums[i / 2][j / 2][i % 2 * 2 + j % 2]; }
};

struct Sums {
  float sums[TALL][PIECE / N][4];
};

// Where a thread's row begins in a 16x16 block of shared memory whose 8x8 matrices are to be loaded down first, or along first.
__device__ __forceinline__ const bf16 *down_first(const bf16 *block) {
  return block + (lane() % 8 + lane() / 8 % 2 * 8) * PITCH<bf16> + lane() / 16 * 8;
}
__device__ __forceinline__ const bf16 *along_first(const bf16 *block) {
  return block + (lane() % 8 + lane() / 16 * 8) * PITCH<bf16> + lane() / 8 % 2 * 8;
}

// tile += the products of the first `width` values of rows and columns. Places behind `width` hold zeros.
__device__ __forceinline__ void add_similarities(Tile &tile, const bf16 *rows, const bf16 *columns, unsigned width) {
#pragma unroll
  for (unsigned k = 0; k < PIECE; k += K) {
    if (k >= width) break;
    unsigned left[TALL][4];
#pragma unroll
    for (unsigned tall = 0; tall < TALL; ++tall)
      load_matrices(left[tall], down_first(rows + (row_of_warp() + tall * M) * PITCH<bf16> + k));
#pragma unroll
    for (unsigned n = 0; n < SPAN / N; n += 2) {
      unsigned right[4];
      load_matrices(right, along_first(columns + n * N * PITCH<bf16> + k));
#pragma unroll
      for (unsigned tall = 0; tall < TALL; ++tall) {
        mma_bf16(tile.sums[tall][n], left[tall], {right[0], right[1]});
        mma_bf16(tile.sums[tall][n + 1], left[tall], {right[2], right[3]});
      }
    }
  }
}

// The largest similarities seldom change after a few tiles.
__device__ __forceinline__ void shrink(Sums &sums, const float (&factors)[Tile::ROWS]) {
#pragma unroll
  for (unsigned i = 0; i < Tile::ROWS; ++i) {
    if (factors[i] == 1.0f) continue;
#pragma unroll
    for (unsigned n = 0; n < PIECE / N; ++n) {
      sums.sums[i / 2][n][i % 2 * 2] *= factors[i];
      sums.sums[i / 2][n][i % 2 * 2 + 1] *= factors[i];
    }
  }
}

// sums += weights * columns, for the first `width` values.
__device__ __forceinline__ void add_weighted(Sums &sums, const Tile &weights, const bf16 *columns, unsigned width) {
#pragma unroll
  for (unsigned k = 0; k < SPAN; k += K) {
    unsigned left[TALL][4];
#pragma unroll
    for (unsigned tall = 0; tall < TALL; ++tall)
#pragma unroll
      for (unsigned i = 0; i < 4; ++i) {
        const float(&pair)[4] = weights.sums[tall][k / N + i / 2];
        left[tall][i] = bf16_pair(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
      }
#pragma unroll
    for (unsigned n = 0; n < PIECE / N; n += 2) {
      if (n * N >= width) break;
      unsigned right[4];
      load_transposed(right, down_first(columns + k * PITCH<bf16> + n * N));
#pragma unroll
      for (unsigned tall = 0; tall < TALL; ++tall) {
        mma_bf16(sums.sums[tall][n], left[tall], {right[0], right[1]});
        mma_bf16(sums.sums[tall][n + 1], left[tall], {right[2], right[3]});
      }
    }
  }
}

__device__ __forceinline__ void write(const Sums &sums, float *target, const Matrix<bf16> &rows, unsigned first_row,
                                      unsigned first_value) {
#pragma unroll
  for (unsigned i = 0; i < Tile::ROWS; ++i) {
    const unsigned row = first_row + Tile::row(i);
    float *place = target + (size_t(blockIdx.y) * rows.count + row) * rows.dim;
#pragma unroll
    for (unsigned n = 0; n < PIECE / N; ++n)
#pragma unroll
      for (unsigned k = 0; k < 2; ++k) {
        const unsigned value = first_value + n * N + 2 * (lane() % 4) + k;
        if (row < rows.count && value < rows.dim) place[value] = sums.sums[i / 2][n][i % 2 * 2 + k];
      }
  }
}

// Rows of PIECE values: they stay in shared memory, and the next columns are copied while these are computed with.
template <class Weights>
__device__ void sweep_piece(const Matrix<bf16> &rows, const Matrix<bf16> &columns, const Columns &part, float scale,
                            Weights weights, float *target) {
  DYNAMIC_SHARED(bf16, row_values);
  bf16 *column_values = row_values + ROWS * PITCH<bf16>;
  const unsigned first_row = blockIdx.x * ROWS;
  Sums sums = {};
  stage<ROWS, THREADS>(row_values, rows, first_row, rows.count, 0);
  stage<SPAN, THREADS>(column_values, columns, part.first, part.end, 0);
  unsigned buffer = 0;
  for (unsigned first = part.first; first < part.end; first += SPAN, buffer ^= 1) {
    bf16 *current = column_values + buffer * SPAN * PITCH<bf16>, *next = column_values + (buffer ^ 1) * SPAN * PITCH<bf16>;
    // Behind the end this copies zeros.
    stage<SPAN, THREADS>(next, columns, first + SPAN, part.end, 0);
    copy_wait<1>();
    __syncthreads();
    Tile tile = {};
    add_similarities(tile, row_values, current, PIECE);
    float factors[Tile::ROWS];
    weights.apply(tile, part, first_row, first, scale, factors);
    shrink(sums, factors);
    add_weighted(sums, tile, current, PIECE);
    __syncthreads();
  }
  copy_wait<0>();
  weights.finish(first_row, rows.count);
  write(sums, target, rows, first_row, 0);
}

// Rows of any length, piece by piece.
template <class Weights>
__device__ void sweep_any(const Matrix<bf16> &rows, const Matrix<bf16> &columns, const Columns &part, float scale,
                          Weights weights, float *target) {
  DYNAMIC_SHARED(bf16, row_values);
  bf16 *column_values = row_values + ROWS * PITCH<bf16>;
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
      add_similarities(tile, row_values, column_values, rows.dim - piece);
    }
    if (own != last) {
      __syncthreads();
      stage<SPAN, THREADS>(column_values, columns, first, part.end, own);
      copy_wait<0>();
      __syncthreads();
    }
    float factors[Tile::ROWS];
    weights.apply(tile, part, first_row, first, scale, factors);
    shrink(sums, factors);
    add_weighted(sums, tile, column_values, rows.dim - own);
  }
  weights.finish(first_row, rows.count);
  write(sums, target, rows, first_row, own);
}

} // namespace sweep_bf16

// Block (x, y, z) takes the x-th ROWS rows, the y-th part of the columns and the z-th PIECE values of the weighted sum.
#define SHARED_KERNELS(NAME, SWEEP)                                                                                    \
  extern "C" __global__ void __launch_bounds__(sweep_bf16::THREADS, 2) shared_sweep_##NAME(                            \
      const bf16 *queries, const bf16 *negatives, unsigned query_count, unsigned negative_count, unsigned dim,         \
      unsigned wide, unsigned per_split, unsigned half, float scale, float *sums, float *weighted) {                   \
    sweep_bf16::SWEEP(Matrix<bf16>{queries, query_count, dim, wide != 0},                                              \
                      Matrix<bf16>{negatives, negative_count, dim, wide != 0},                                         \
                      columns_of_block(negative_count, per_split, half), scale,                                        \
                      OnlineWeights<sweep_bf16::Tile>(sums, negative_count), weighted);                                \
  }                                                                                                                    \
  EXPORT_KERNEL(shared_sweep_##NAME)                                                                                   \
  extern "C" __global__ void __launch_bounds__(sweep_bf16::THREADS, 2) shared_gradient_##NAME(                         \
      const bf16 *negatives, const bf16 *queries, unsigned negative_count, unsigned query_count, unsigned dim,         \
      unsigned wide, unsigned per_split, unsigned half, float scale, const float *known, float *target) {              \
    sweep_bf16::SWEEP(Matrix<bf16>{negatives, negative_count, dim, wide != 0},                                         \
                      Matrix<bf16>{queries, query_count, dim, wide != 0},                                              \
                      columns_of_block(query_count, per_split, half), scale,                                           \
                      KnownWeights<sweep_bf16::Tile>(known, query_count), target);                                     \
  }                                                                                                                    \
  EXPORT_KERNEL(shared_gradient_##NAME)

// For rows of PIECE values that begin at multiples of 16 bytes, and for others.
SHARED_KERNELS(bf16_piece, sweep_piece)
SHARED_KERNELS(bf16, sweep_any)
