// Batch statistics, the affine map that they make, and the running estimates.
#include "columns.cuh"

// Per band and channel: sums of the differences to the group's first row and of their squares, so that nothing cancels when
// the mean is large against the deviation.
template <class T, unsigned VECTOR>
__device__ __forceinline__ void batch_norm_sums(const T *x, float *partial, unsigned channels, unsigned rows) {
  const Columns columns = Columns::together<VECTOR>(channels, rows);
  float sum[VECTOR] = {}, squares[VECTOR] = {};
  if (columns.are_there()) {
    const Vector<T, VECTOR> origin = Vector<T, VECTOR>::load(x + columns.place(0));
    for (unsigned row = columns.first_row; row < columns.end_row; row += columns.step) {
      const Vector<T, VECTOR> value = Vector<T, VECTOR>::load(x + columns.place_from_end(row));
#pragma unroll
      for (unsigned i = 0; i < VECTOR; ++i) {
        const float difference = value.values[i] - origin.values[i];
        sum[i] += difference;
        squares[i] += difference * difference;
      }
    }
  }
  store_partial_sums<VECTOR>(columns, sum, squares, partial);
}

#define BATCH_NORM_SUMS(NAME, T, VECTOR)                                                                               \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
      NAME(const T *__restrict__ x, float *__restrict__ partial, unsigned channels, unsigned rows) {                   \
    batch_norm_sums<T, VECTOR>(x, partial, channels, rows);                                                            \
  }                                                                                                                    \
  EXPORT_KERNEL(NAME)
BATCH_NORM_SUMS(batch_norm_sums_f32, float, 8)
BATCH_NORM_SUMS(batch_norm_sums_bf16, bf16, 8)
BATCH_NORM_SUMS(batch_norm_sums_single_f32, float, 1)
BATCH_NORM_SUMS(batch_norm_sums_single_bf16, bf16, 1)

// What backward and forward passes need of a channel, each `[groups, channels]`.
struct Constants {
  float *mean, *inverse_deviation, *scale, *shift;

  __device__ __forceinline__ static Constants of(float *start, unsigned columns) {
    return Constants{start, start + columns, start + 2 * columns, start + 3 * columns};
  }
};

__device__ __forceinline__ float moved(float running, double value, float momentum) {
  return static_cast<float>((1.0 - momentum) * running + momentum * value);
}

// One column of [groups, channels] a threadIdx.x: mean, inverse deviation, scale = weight / deviation, shift = bias - mean
// scale. Running estimates move by the groups in turn, in `batch_norm_running`.
template <class T>
__device__ __forceinline__ void batch_norm_finish(const T *x, const float *partial, const float *weight, const float *bias,
                                                  float *constants, double *variances, unsigned channels, unsigned rows,
                                                  unsigned groups, unsigned bands, float epsilon) {
  const unsigned columns = groups * channels, column = blockIdx.x * blockDim.x + threadIdx.x;
  const BandSums sums = sum_bands(partial, bands, column, columns);
  if (threadIdx.y != 0 || column >= columns) return;
  const unsigned channel = column % channels;
  const float origin = to_float(x[static_cast<size_t>(column / channels) * rows * channels + channel]);
  const double shift_of_mean = sums.first / rows;
  double variance = sums.second / rows - shift_of_mean * shift_of_mean;
  if (variance < 0.0) variance = 0.0;
  const float mean = static_cast<float>(origin + shift_of_mean);
  const float inverse = static_cast<float>(1.0 / sqrt(variance + epsilon));
  const Constants target = Constants::of(constants, columns);
  const float scale = inverse * weight[channel];
  target.mean[column] = mean;
  target.inverse_deviation[column] = inverse;
  target.scale[column] = scale;
  target.shift[column] = bias[channel] - mean * scale;
  variances[column] = variance;
}

#define BATCH_NORM_FINISH(NAME, T)                                                                                     \
  extern "C" __global__ void NAME(const T *__restrict__ x, const float *__restrict__ partial,                          \
                                  const float *__restrict__ weight, const float *__restrict__ bias,                    \
                                  float *__restrict__ constants, double *__restrict__ variances, unsigned channels,    \
                                  unsigned rows, unsigned groups, unsigned bands, float epsilon) {                     \
    batch_norm_finish<T>(x, partial, weight, bias, constants, variances, channels, rows, groups, bands, epsilon);      \
  }                                                                                                                    \
  EXPORT_KERNEL(NAME)
BATCH_NORM_FINISH(batch_norm_finish_f32, float)
BATCH_NORM_FINISH(batch_norm_finish_bf16, bf16)

// Moves the running estimates by each group in turn, the variance by the unbiased one, as PyTorch does.
extern "C" __global__ void batch_norm_running(const float *__restrict__ constants, const double *__restrict__ variances,
                                              float *__restrict__ running_mean, float *__restrict__ running_var,
                                              unsigned channels, unsigned rows, unsigned groups, float momentum) {
  const unsigned channel = blockIdx.x * blockDim.x + threadIdx.x;
  if (channel >= channels) return;
  const double unbiased = static_cast<double>(rows) / (rows - 1);
  float mean = running_mean[channel], variance = running_var[channel];
  for (unsigned group = 0; group < groups; ++group) {
    mean = moved(mean, constants[group * channels + channel], momentum);
    variance = moved(variance, variances[group * channels + channel] * unbiased, momentum);
  }
  running_mean[channel] = mean;
  running_var[channel] = variance;
}
EXPORT_KERNEL(batch_norm_running)

// The affine map of running estimates.
extern "C" __global__ void batch_norm_of_running(const float *__restrict__ running_mean,
                                                 const float *__restrict__ running_var, const float *__restrict__ weight,
                                                 const float *__restrict__ bias, float *__restrict__ constants,
                                                 unsigned channels, float epsilon) {
  const unsigned channel = blockIdx.x * blockDim.x + threadIdx.x;
  if (channel >= channels) return;
  const Constants target = Constants::of(constants, channels);
  const float inverse = static_cast<float>(1.0 / sqrt(static_cast<double>(running_var[channel]) + epsilon));
  const float scale = inverse * weight[channel];
  target.mean[channel] = running_mean[channel];
  target.inverse_deviation[channel] = inverse;
  target.scale[channel] = scale;
  target.shift[channel] = bias[channel] - running_mean[channel] * scale;
}
EXPORT_KERNEL(batch_norm_of_running)
