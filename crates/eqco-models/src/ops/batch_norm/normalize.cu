// y = relu?(scale x + shift + residual?)
#include "columns.cuh"

template <class T, unsigned VECTOR>
__device__ __forceinline__ void batch_norm_normalize(const T *x, const T *residual, const float *constants, T *y,
                                                     unsigned channels, unsigned rows, unsigned band, unsigned relu) {
  const Columns columns = Columns::in_bands<VECTOR>(channels, rows, band);
  if (!columns.are_there()) return;
  const unsigned all = gridDim.z * channels;
  float scale[VECTOR], shift[VECTOR];
  load_constants<VECTOR>(constants + 2 * all + columns.constants(), scale);
  load_constants<VECTOR>(constants + 3 * all + columns.constants(), shift);
  for (unsigned row = columns.first_row; row < columns.end_row; row += columns.step) {
    const size_t place = columns.place(row);
    Vector<T, VECTOR> value = Vector<T, VECTOR>::load(x + place);
#pragma unroll
    for (unsigned i = 0; i < VECTOR; ++i) value.values[i] = fmaf(value.values[i], scale[i], shift[i]);
    if (residual) {
      const Vector<T, VECTOR> other = Vector<T, VECTOR>::load(residual + place);
#pragma unroll
      for (unsigned i = 0; i < VECTOR; ++i) value.values[i] += other.values[i];
    }
    if (relu) {
      // Unlike a maximum this lets a NaN through, so that a diverged run shows.
#pragma unroll
      for (unsigned i = 0; i < VECTOR; ++i) value.values[i] = value.values[i] < 0.0f ? 0.0f : value.values[i];
    }
    value.store(y + place);
  }
}

// `residual` may be 0.
#define BATCH_NORM_NORMALIZE(NAME, T, VECTOR)                                                                          \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
      NAME(const T *__restrict__ x, const T *__restrict__ residual, const float *__restrict__ constants,               \
           T *__restrict__ y, unsigned channels, unsigned rows, unsigned band, unsigned relu) {                        \
    batch_norm_normalize<T, VECTOR>(x, residual, constants, y, channels, rows, band, relu);                            \
  }                                                                                                                    \
  EXPORT_KERNEL(NAME)
BATCH_NORM_NORMALIZE(batch_norm_normalize_f32, float, 8)
BATCH_NORM_NORMALIZE(batch_norm_normalize_bf16, bf16, 8)
BATCH_NORM_NORMALIZE(batch_norm_normalize_single_f32, float, 1)
BATCH_NORM_NORMALIZE(batch_norm_normalize_single_bf16, bf16, 1)
