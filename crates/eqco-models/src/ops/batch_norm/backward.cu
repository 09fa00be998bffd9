// The backward passes: sums for the gradients of weight and bias, then the gradient of the input.
//
// With the normalised input x^ and the masked gradient g over n rows:
// dx = weight / deviation * (g - mean(g) - x^ mean(g x^)).
#include "columns.cuh"

// Where the output was positive, its ReLU lets the gradient pass.
enum MaskKind : unsigned { MASK_NONE = 0, MASK_FROM_INPUT = 1, MASK_FROM_OUTPUT = 2 };

template <unsigned VECTOR>
struct ChannelConstants {
  float mean[VECTOR], scale[VECTOR], shift[VECTOR];

  __device__ __forceinline__ static ChannelConstants load(const float *constants, unsigned all, unsigned place) {
    ChannelConstants channel;
    load_constants<VECTOR>(constants + place, channel.mean);
    load_constants<VECTOR>(constants + 2 * all + place, channel.scale);
    load_constants<VECTOR>(constants + 3 * all + place, channel.shift);
    return channel;
  }
};

template <class T, unsigned VECTOR>
__device__ __forceinline__ void mask_gradient(Vector<T, VECTOR> &gradient, const Vector<T, VECTOR> &x, const T *output,
                                              const ChannelConstants<VECTOR> &channel, unsigned mask) {
  if (mask == MASK_FROM_INPUT) {
#pragma unroll
    for (unsigned i = 0; i < VECTOR; ++i)
      if (!(fmaf(x.values[i], channel.scale[i], channel.shift[i]) > 0.0f)) gradient.values[i] = 0.0f;
  } else if (mask == MASK_FROM_OUTPUT) {
    const Vector<T, VECTOR> y = Vector<T, VECTOR>::load(output);
#pragma unroll
    for (unsigned i = 0; i < VECTOR; ++i)
      if (!(y.values[i] > 0.0f)) gradient.values[i] = 0.0f;
  }
}

// Per band and channel: sums of g and of g (x - mean). A gradient that is masked by the stored output is written back, so that
// the next pass need not read that again.
template <class T, unsigned VECTOR>
__device__ __forceinline__ void batch_norm_gradient_sums(const T *x, T *dy, const T *y, const float *constants,
                                                         float *partial, unsigned channels, unsigned rows, unsigned mask) {
  const Columns columns = Columns::together<VECTOR>(channels, rows);
  float sum[VECTOR] = {}, products[VECTOR] = {};
  if (columns.are_there()) {
    const ChannelConstants<VECTOR> channel =
        ChannelConstants<VECTOR>::load(constants, gridDim.z * channels, columns.constants());
    for (unsigned row = columns.first_row; row < columns.end_row; row += columns.step) {
      const size_t place = columns.place_from_end(row);
      const Vector<T, VECTOR> value = Vector<T, VECTOR>::load(x + place);
      Vector<T, VECTOR> gradient = Vector<T, VECTOR>::load(dy + place);
      mask_gradient<T, VECTOR>(gradient, value, y + place, channel, mask);
      if (mask == MASK_FROM_OUTPUT) gradient.store(dy + place);
#pragma unroll
      for (unsigned i = 0; i < VECTOR; ++i) {
        sum[i] += gradient.values[i];
        products[i] += gradient.values[i] * (value.values[i] - channel.mean[i]);
      }
    }
  }
  store_partial_sums<VECTOR>(columns, sum, products, partial);
}

#define BATCH_NORM_GRADIENT_SUMS(NAME, T, VECTOR)                                                                      \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
      NAME(const T *__restrict__ x, T *__restrict__ dy, const T *__restrict__ y,                                       \
           const float *__restrict__ constants, float *__restrict__ partial, unsigned channels, unsigned rows,         \
           unsigned mask) {                                                                                            \
    batch_norm_gradient_sums<T, VECTOR>(x, dy, y, constants, partial, channels, rows, mask);                           \
  }                                                                                                                    \
  EXPORT_KERNEL(NAME)
BATCH_NORM_GRADIENT_SUMS(batch_norm_gradient_sums_f32, float, 8)
BATCH_NORM_GRADIENT_SUMS(batch_norm_gradient_sums_bf16, bf16, 8)
BATCH_NORM_GRADIENT_SUMS(batch_norm_gradient_sums_single_f32, float, 1)
BATCH_NORM_GRADIENT_SUMS(batch_norm_gradient_sums_single_bf16, bf16, 1)

// One column of [groups, channels] a threadIdx.x. Leaves the sums of each group as `sums[2][groups, channels]`: the gradient
// of the bias and that of the weight.
extern "C" __global__ void batch_norm_gradient_finish(const float *__restrict__ partial, const float *__restrict__ constants,
                                                      float *__restrict__ sums, unsigned columns, unsigned bands) {
  const unsigned column = blockIdx.x * blockDim.x + threadIdx.x;
  const BandSums found = sum_bands(partial, bands, column, columns);
  if (threadIdx.y != 0 || column >= columns) return;
  const float inverse_deviation = constants[columns + column];
  sums[column] = static_cast<float>(found.first);
  sums[columns + column] = static_cast<float>(found.second * inverse_deviation);
}
EXPORT_KERNEL(batch_norm_gradient_finish)

// Gradients of weight and bias: the groups' sums in their order.
extern "C" __global__ void batch_norm_parameter_gradients(const float *__restrict__ sums, float *__restrict__ weight,
                                                          float *__restrict__ bias, unsigned channels, unsigned groups,
                                                          unsigned add_weight, unsigned add_bias) {
  const unsigned channel = blockIdx.x * blockDim.x + threadIdx.x;
  if (channel >= channels) return;
  const unsigned columns = groups * channels;
  float bias_sum = add_bias ? bias[channel] : 0.0f, weight_sum = add_weight ? weight[channel] : 0.0f;
  for (unsigned group = 0; group < groups; ++group) {
    bias_sum += sums[group * channels + channel];
    weight_sum += sums[columns + group * channels + channel];
  }
  bias[channel] = bias_sum;
  weight[channel] = weight_sum;
}
EXPORT_KERNEL(batch_norm_parameter_gradients)

// Writes the gradient of the input to `target`, which may be `dy`. What the stored output masks has been masked by the sums.
template <class T, unsigned VECTOR>
__device__ __forceinline__ void batch_norm_input_gradient(const T *x, const T *dy, T *target, const float *constants,
                                                          const float *sums, unsigned channels, unsigned rows, unsigned band,
                                                          unsigned mask) {
  const Columns columns = Columns::in_bands<VECTOR>(channels, rows, band);
  if (!columns.are_there()) return;
  const unsigned all = gridDim.z * channels, own = columns.constants();
  const ChannelConstants<VECTOR> channel = ChannelConstants<VECTOR>::load(constants, all, own);
  // dx = scale (g - mean_gradient - (x - mean) slope)
  float mean_gradient[VECTOR], slope[VECTOR];
#pragma unroll
  for (unsigned i = 0; i < VECTOR; ++i) {
    mean_gradient[i] = sums[own + i] / rows;
    slope[i] = sums[all + own + i] / rows * constants[all + own + i];
  }
  for (unsigned row = columns.first_row; row < columns.end_row; row += columns.step) {
    const size_t place = columns.place(row);
    const Vector<T, VECTOR> value = Vector<T, VECTOR>::load(x + place);
    Vector<T, VECTOR> gradient = Vector<T, VECTOR>::load(dy + place);
    if (mask == MASK_FROM_INPUT) mask_gradient<T, VECTOR>(gradient, value, nullptr, channel, mask);
#pragma unroll
    for (unsigned i = 0; i < VECTOR; ++i)
      gradient.values[i] =
          channel.scale[i] * (gradient.values[i] - mean_gradient[i] - (value.values[i] - channel.mean[i]) * slope[i]);
    gradient.store(target + place);
  }
}

#define BATCH_NORM_INPUT_GRADIENT(NAME, T, VECTOR)                                                                     \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
      NAME(const T *__restrict__ x, const T *dy, T *target, const float *__restrict__ constants,                       \
           const float *__restrict__ sums, unsigned channels, unsigned rows, unsigned band, unsigned mask) {           \
    batch_norm_input_gradient<T, VECTOR>(x, dy, target, constants, sums, channels, rows, band, mask);                  \
  }                                                                                                                    \
  EXPORT_KERNEL(NAME)
BATCH_NORM_INPUT_GRADIENT(batch_norm_input_gradient_f32, float, 8)
BATCH_NORM_INPUT_GRADIENT(batch_norm_input_gradient_bf16, bf16, 8)
BATCH_NORM_INPUT_GRADIENT(batch_norm_input_gradient_single_f32, float, 1)
BATCH_NORM_INPUT_GRADIENT(batch_norm_input_gradient_single_bf16, bf16, 1)
