// Sweeps over columns that each row has a list of. A warp takes a row, and of its list as many columns at a time as it has
// threads: their similarities first, eight threads a column, then their weighted sum, all threads along the row.
#include "sweep.cuh"

namespace gathered {

constexpr unsigned WARPS = 4;
// Threads that share a dot product.
constexpr unsigned TEAM = 8;
constexpr unsigned TEAMS = WARP / TEAM;

template <class T>
__device__ __forceinline__ float team_dot(const T *left, const T *right, unsigned dim, bool wide) {
  constexpr unsigned COUNT = Pack<T>::COUNT;
  const unsigned member = threadIdx.x % TEAM;
  float sum = 0.0f;
  if (wide) {
    for (unsigned d = member * COUNT; d < dim; d += TEAM * COUNT) {
      const Pack<T> a = Pack<T>::load(left + d), b = Pack<T>::load(right + d);
#pragma unroll
      for (unsigned i = 0; i < COUNT; ++i) sum += a.values[i] * b.values[i];
    }
  } else {
    for (unsigned d = member; d < dim; d += TEAM) sum += to_float(left[d]) * to_float(right[d]);
  }
#pragma unroll
  for (unsigned mask = TEAM / 2; mask > 0; mask /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, mask);
  return sum;
}

// Thread t gets the similarity of `row` and column `index` as thread t has it, for the first `count` threads.
template <class T>
__device__ __forceinline__ float similarities(const T *row, const Matrix<T> &columns, unsigned index, unsigned count) {
  const unsigned lane = threadIdx.x % WARP;
  float mine = 0.0f;
  for (unsigned first = 0; first < count; first += TEAMS) {
    // Behind the end of the list teams repeat its last column.
    const unsigned slot = first + lane / TEAM;
    const unsigned column = __shfl_sync(ALL_LANES, index, slot < count ? slot : count - 1);
    const float sum = team_dot(row, columns.row(column), columns.dim, columns.wide);
    const float received = __shfl_sync(ALL_LANES, sum, lane % TEAMS * TEAM);
    if (lane / TEAMS == first / TEAMS) mine = received;
  }
  return mine;
}

// target = factor * target + the sum of the weighted columns; thread t has weight and index of column t. Every thread sees
// the places that it has written itself alone.
template <unsigned COUNT, class T>
__device__ __forceinline__ void add_weighted(float *target, float factor, const Matrix<T> &columns, unsigned index,
                                             float weight, unsigned count) {
  for (unsigned first = 0; first < columns.dim; first += WARP * COUNT) {
    const unsigned d = first + threadIdx.x % WARP * COUNT;
    const bool inside = d < columns.dim;
    float sum[COUNT];
#pragma unroll
    for (unsigned i = 0; i < COUNT; ++i) sum[i] = inside && factor != 0.0f ? factor * target[d + i] : 0.0f;
    for (unsigned slot = 0; slot < count; ++slot) {
      const T *column = columns.row(__shfl_sync(ALL_LANES, index, slot));
      const float w = __shfl_sync(ALL_LANES, weight, slot);
      if (!inside) continue;
      if (COUNT == 1) {
        sum[0] += w * to_float(column[d]);
      } else {
        const Pack<T> pack = Pack<T>::load(column + d);
#pragma unroll
        for (unsigned i = 0; i < COUNT; ++i) sum[i] += w * pack.values[i];
      }
    }
#pragma unroll
    for (unsigned i = 0; i < COUNT; ++i)
      if (inside) target[d + i] = sum[i];
  }
}

template <class T>
__device__ __forceinline__ void add(float *target, float factor, const Matrix<T> &columns, unsigned index, float weight,
                                    unsigned count) {
  if (columns.wide)
    add_weighted<Pack<T>::COUNT>(target, factor, columns, index, weight, count);
  else
    add_weighted<1>(target, factor, columns, index, weight, count);
}

// The loss: each query's list holds `length` keys, of which a block takes `per_split`. Writes sums and weighted keys,
// `[splits, queries, dim]`.
template <class T>
__device__ void sweep(const Matrix<T> &queries, const Matrix<T> &keys, const unsigned *lists, unsigned length,
                      unsigned per_split, float scale, float *sums, float *weighted) {
  const unsigned query = blockIdx.x * WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (query >= queries.count) return;
  const Columns part = columns_of_block(length, per_split, 0);
  float *target = weighted + (size_t(blockIdx.y) * queries.count + query) * queries.dim;
  RunningSums running;
  for (unsigned first = part.first; first < part.end; first += WARP) {
    const unsigned count = part.end - first < WARP ? part.end - first : WARP;
    const unsigned index = lane < count ? lists[size_t(query) * length + first + lane] : 0;
    const float similarity = similarities(queries.row(query), keys, index, count);
    // Nothing has been summed before the first columns, and what lies there must not be read.
    const float shrunk = running.raise(warp_max(lane < count ? similarity : -INFINITY), scale);
    const float factor = first == part.first ? 0.0f : shrunk;
    const float weight = lane < count ? fast_exp2(scale * (similarity - running.shift())) : 0.0f;
    running.weight += warp_sum(weight);
    running.total += warp_sum(lane < count ? similarity : 0.0f);
    add(target, factor, keys, index, weight, count);
  }
  if (lane == 0) SumsTable{sums, queries.count}.write(query, running);
}

// Its gradient with respect to the keys as negatives, `[keys, dim]`: the list of key k, the queries that drew it in ascending
// order, lies at [starts[k], starts[k + 1]).
template <class T>
__device__ void gradient(const Matrix<T> &keys, const Matrix<T> &queries, const unsigned *starts, const unsigned *lists,
                         float scale, const float *known, float *target) {
  const unsigned key = blockIdx.x * WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (key >= keys.count) return;
  float *sum = target + size_t(key) * keys.dim;
  for (unsigned d = lane; starts[key] == starts[key + 1] && d < keys.dim; d += WARP) sum[d] = 0.0f;
  for (unsigned first = starts[key]; first < starts[key + 1]; first += WARP) {
    const unsigned left = starts[key + 1] - first, count = left < WARP ? left : WARP;
    const unsigned index = lane < count ? lists[first + lane] : 0;
    const float similarity = similarities(keys.row(key), queries, index, count);
    const float weight = KnownTable{known, queries.count}.of(index, queries.count).weight(similarity, scale);
    add(sum, first == starts[key] ? 0.0f : 1.0f, queries, index, weight, count);
  }
}

} // namespace gathered

#define GATHERED_KERNELS(T)                                                                                            \
  extern "C" __global__ void gathered_sweep_##T(                                                                       \
      const ELEMENT_##T *queries, const ELEMENT_##T *keys, unsigned query_count, unsigned key_count, unsigned dim,     \
      unsigned wide, const unsigned *lists, unsigned length, unsigned per_split, float scale, float *sums,             \
      float *weighted) {                                                                                               \
    gathered::sweep(Matrix<ELEMENT_##T>{queries, query_count, dim, wide != 0},                                         \
                    Matrix<ELEMENT_##T>{keys, key_count, dim, wide != 0}, lists, length, per_split, scale, sums,       \
                    weighted);                                                                                         \
  }                                                                                                                    \
  EXPORT_KERNEL(gathered_sweep_##T)                                                                                    \
  extern "C" __global__ void gathered_gradient_##T(                                                                    \
      const ELEMENT_##T *keys, const ELEMENT_##T *queries, unsigned key_count, unsigned query_count, unsigned dim,     \
      unsigned wide, const unsigned *starts, const unsigned *lists, float scale, const float *known, float *target) {  \
    gathered::gradient(Matrix<ELEMENT_##T>{keys, key_count, dim, wide != 0},                                           \
                       Matrix<ELEMENT_##T>{queries, query_count, dim, wide != 0}, starts, lists, scale, known,         \
                       target);                                                                                        \
  }                                                                                                                    \
  EXPORT_KERNEL(gathered_gradient_##T)

using ELEMENT_f32 = float;
using ELEMENT_bf16 = bf16;
GATHERED_KERNELS(f32)
GATHERED_KERNELS(bf16)
