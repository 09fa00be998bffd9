// From a tile of similarities to a tile of weights, in registers.
//
// A `Tile` is one thread's part of a block's tile of SPAN columns: `at(i, j)` is row `row(i)` and column `column(j)` of the
// block's tile. The SHARERS threads of neighbouring numbers have the same rows.
#pragma once
#include "sweep.cuh"

template <unsigned SHARERS>
__device__ __forceinline__ float shared_max(float value) {
#pragma unroll
  for (unsigned mask = SHARERS / 2; mask > 0; mask /= 2) value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, mask));
  return value;
}

template <unsigned SHARERS>
__device__ __forceinline__ float shared_sum(float value) {
#pragma unroll
  for (unsigned mask = SHARERS / 2; mask > 0; mask /= 2) value += __shfl_xor_sync(ALL_LANES, value, mask);
  return value;
}

// Weights of a softmax whose sums are not known yet.
template <class Tile>
struct OnlineWeights {
  RunningSums rows[Tile::ROWS];
  float *table;

  __device__ __forceinline__ OnlineWeights(float *table, unsigned) : table(table) {}

  // `factors` is what the sums of weighted columns shrink by before those of this tile are added.
  __device__ __forceinline__ void apply(Tile &tile, const Columns &columns, unsigned first_row, unsigned first_column,
                                        float scale, float (&factors)[Tile::ROWS]) {
    const bool all_meet = columns.all_meet(first_column, Tile::SPAN);
#pragma unroll
    for (unsigned i = 0; i < Tile::ROWS; ++i) {
      // A sum for each tile first: sums of few values are more exact than one of many.
      float total = 0.0f, largest = -INFINITY, weight = 0.0f;
#pragma unroll
      for (unsigned j = 0; j < Tile::COLUMNS; ++j) {
        float &similarity = tile.at(i, j);
        if (all_meet || columns.meet(first_row + Tile::row(i), first_column + Tile::column(j)))
          total += similarity;
        else
          similarity = -INFINITY;
        largest = fmaxf(largest, similarity);
      }
      factors[i] = rows[i].raise(shared_max<Tile::SHARERS>(largest), scale);
      const float shift = rows[i].shift();
#pragma unroll
      for (unsigned j = 0; j < Tile::COLUMNS; ++j) {
        tile.at(i, j) = fast_exp2(scale * (tile.at(i, j) - shift));
        weight += tile.at(i, j);
      }
      rows[i].total += total;
      rows[i].weight += weight;
    }
  }

  // Writes the sums of rows below `row_count`. Blocks that sum other values of the same rows have found the same sums.
  __device__ __forceinline__ void finish(unsigned first_row, unsigned row_count) {
#pragma unroll
    for (unsigned i = 0; i < Tile::ROWS; ++i) {
      RunningSums sums = rows[i];
      sums.weight = shared_sum<Tile::SHARERS>(sums.weight);
      sums.total = shared_sum<Tile::SHARERS>(sums.total);
      const unsigned row = first_row + Tile::row(i);
      if (blockIdx.z == 0 && threadIdx.x % Tile::SHARERS == 0 && row < row_count) SumsTable{table, row_count}.write(row, sums);
    }
  }
};

// Weights of queries, the columns, in the gradient of the keys that they met.
template <class Tile>
struct KnownWeights {
  KnownTable known;

  __device__ __forceinline__ KnownWeights(const float *table, unsigned column_count) : known{table, column_count} {}

  __device__ __forceinline__ void apply(Tile &tile, const Columns &columns, unsigned first_row, unsigned first_column,
                                        float scale, float (&factors)[Tile::ROWS]) const {
#pragma unroll
    for (unsigned i = 0; i < Tile::ROWS; ++i) factors[i] = 1.0f;
    const bool all_meet = columns.all_meet(first_column, Tile::SPAN);
#pragma unroll
    for (unsigned j = 0; j < Tile::COLUMNS; ++j) {
      const unsigned column = first_column + Tile::column(j);
      const KnownTable::Entry query = known.of(column, columns.end);
#pragma unroll
      for (unsigned i = 0; i < Tile::ROWS; ++i) {
        const bool meet = all_meet || columns.meet(first_row + Tile::row(i), column);
        tile.at(i, j) = meet ? query.weight(tile.at(i, j), scale) : 0.0f;
      }
    }
  }

  __device__ __forceinline__ void finish(unsigned, unsigned) const {}
};
