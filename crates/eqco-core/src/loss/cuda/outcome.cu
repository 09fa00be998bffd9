// From the sums over the negatives to the loss, the gradient of the queries and the statistics of the batch.
#include "sweep.cuh"

namespace outcome {

constexpr unsigned WARPS = 4;

// What is written of each query, `[FIELDS, queries]`: see QueryMeans in bound.rs for the first six.
enum Field { LOSS, INFONCE_LOSS, GRADIENT_SCALE, POSITIVE, NEGATIVE, TOP1, TEMPERATURE_GRADIENT, FIELDS };

// ln(1 + e^x) without overflow for large x and without rounding to 0 for very negative x.
__device__ __forceinline__ double softplus(double x) {
  const double small = log1p(exp(-fabs(x)));
  return x > 0.0 ? x + small : small;
}

__device__ __forceinline__ double sigmoid(double x) {
  const double e = exp(-fabs(x));
  return x > 0.0 ? 1.0 / (1.0 + e) : e / (1.0 + e);
}

// The settings of the loss. `log_ratio` is ln(alpha / K); `decoupled` leaves the positive out of the denominator.
struct Settings {
  double temperature, log_ratio, tie;
  float scale;
  bool decoupled;
  unsigned negative_count;
};

// The softmax sums of one query over all splits, in the order of the splits.
struct Merged {
  float largest = -INFINITY;
  double weight = 0.0, total = 0.0;

  __device__ Merged(const float *sums, unsigned splits, unsigned rows, unsigned row, float scale) {
    for (unsigned split = 0; split < splits; ++split) largest = fmaxf(largest, part(sums, split, 0, rows, row));
    for (unsigned split = 0; split < splits; ++split) {
      weight += double(factor(part(sums, split, 0, rows, row), scale)) * part(sums, split, 1, rows, row);
      total += part(sums, split, 2, rows, row);
    }
  }

  __device__ __forceinline__ static float part(const float *sums, unsigned split, unsigned which, unsigned rows,
                                               unsigned row) {
    return sums[(size_t(split) * 3 + which) * rows + row];
  }

  // What a split's weights shrink by. All of them may be at minus infinity; NaN stays.
  __device__ __forceinline__ float factor(float of_split, float scale) const {
    return of_split == largest ? 1.0f : fast_exp2(scale * (of_split - largest));
  }
};

template <class T>
__device__ __forceinline__ double warp_dot(const T *left, const T *right, unsigned dim) {
  double sum = 0.0;
  for (unsigned d = threadIdx.x % WARP; d < dim; d += WARP) sum += double(to_float(left[d])) * to_float(right[d]);
  return warp_sum(sum);
}

// Writes the query's gradient (to one of two targets) and returns the dot product of the query and its weighted keys.
template <class T>
__device__ double write_gradient(const T *query, const T *positive, const float *sums, const float *weighted,
                                 unsigned splits, unsigned count, unsigned dim, unsigned row, const Merged &merged,
                                 const Settings &settings, double coefficient, T *gradient, float *raw_gradient) {
  double dot = 0.0;
  for (unsigned d = threadIdx.x % WARP; d < dim; d += WARP) {
    float sum = 0.0f;
    for (unsigned split = 0; split < splits; ++split) {
      const float factor = merged.factor(Merged::part(sums, split, 0, count, row), settings.scale);
      sum += factor * weighted[(size_t(split) * count + row) * dim + d];
    }
    dot += double(to_float(query[d])) * sum;
    const float value = float(coefficient * (sum / merged.weight - to_float(positive[d])));
    if (raw_gradient)
      raw_gradient[size_t(row) * dim + d] = value;
    else
      gradient[size_t(row) * dim + d] = from_float<T>(value);
  }
  return warp_sum(dot);
}

// One query a warp. Its positive is the row `partner` places on, cyclically.
template <class T>
__device__ void finish(const T *queries, const T *keys, unsigned count, unsigned dim, unsigned partner, const float *sums,
                       const float *weighted, unsigned splits, const Settings &settings, T *gradient,
                       float *raw_gradient, float *known, double *fields) {
  const unsigned row = blockIdx.x * WARPS + threadIdx.x / WARP;
  if (row >= count) return;
  const T *query = queries + size_t(row) * dim, *positive = keys + size_t((row + partner) % count) * dim;
  const Merged merged(sums, splits, count, row, settings.scale);
  const double positive_similarity = warp_dot(query, positive, dim);
  const double positive_logit = positive_similarity / settings.temperature;
  const double hardest = merged.largest;
  const double difference = hardest / settings.temperature + log(merged.weight) - positive_logit;
  const double d = difference + settings.log_ratio;
  const double gradient_scale = settings.decoupled ? 1.0 : sigmoid(d);
  const double factor = gradient_scale / settings.temperature, coefficient = factor / count;

  const double dot = write_gradient(query, positive, sums, weighted, splits, count, dim, row, merged, settings, coefficient,
                                    gradient, raw_gradient);
  if (threadIdx.x % WARP != 0) return;
  known[row] = merged.largest;
  known[count + row] = float(coefficient / merged.weight);
  known[2 * size_t(count) + row] = float(coefficient);
  double *place = fields + row;
  const size_t step = count;
  place[LOSS * step] = settings.decoupled ? difference : softplus(d);
  place[INFONCE_LOSS * step] = softplus(difference);
  place[GRADIENT_SCALE * step] = gradient_scale;
  place[POSITIVE * step] = positive_similarity;
  place[NEGATIVE * step] = merged.total / settings.negative_count;
  const double tie = settings.tie * fmax(fabs(positive_similarity), fabs(hardest));
  place[TOP1 * step] = positive_similarity > hardest + tie ? 1.0 : 0.0;
  const double mean_logit = dot / merged.weight / settings.temperature;
  place[TEMPERATURE_GRADIENT * step] = factor * (positive_logit - mean_logit);
}

constexpr unsigned REDUCERS = 256;

// The sum of what the block's threads have, in a fixed order; for all of them.
__device__ __forceinline__ double block_sum(double value) {
  __shared__ double partial[REDUCERS / WARP];
  value = warp_sum(value);
  if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP] = value;
  __syncthreads();
  double sum = 0.0;
  for (unsigned warp = 0; warp < REDUCERS / WARP; ++warp) sum += partial[warp];
  __syncthreads();
  return sum;
}

} // namespace outcome

#define OUTCOME_KERNEL(T, TYPE)                                                                                        \
  extern "C" __global__ void loss_outcome_##T(                                                                         \
      const TYPE *queries, const TYPE *keys, unsigned count, unsigned dim, unsigned partner, const float *sums,        \
      const float *weighted, unsigned splits, double temperature, double log_ratio, double tie, float scale,           \
      unsigned decoupled, unsigned negative_count, TYPE *gradient, float *raw_gradient, float *known,                  \
      double *fields) {                                                                                                \
    const outcome::Settings settings{temperature, log_ratio, tie, scale, decoupled != 0, negative_count};              \
    outcome::finish(queries, keys, count, dim, partner, sums, weighted, splits, settings, gradient, raw_gradient,      \
                    known, fields);                                                                                    \
  }                                                                                                                    \
  EXPORT_KERNEL(loss_outcome_##T)

OUTCOME_KERNEL(f32, float)
OUTCOME_KERNEL(bf16, bf16)

// Means over the queries, and behind them the standard deviation of the gradient's scale. One block.
extern "C" __global__ void loss_means(const double *__restrict__ fields, unsigned count, double *__restrict__ means) {
  using namespace outcome;
  double scale_mean = 0.0;
  for (unsigned field = 0; field < FIELDS; ++field) {
    double sum = 0.0;
    for (unsigned i = threadIdx.x; i < count; i += REDUCERS) sum += fields[size_t(field) * count + i];
    const double mean = block_sum(sum) / count;
    if (field == GRADIENT_SCALE) scale_mean = mean;
    if (threadIdx.x == 0) means[field] = mean;
  }
  double squares = 0.0;
  for (unsigned i = threadIdx.x; i < count; i += REDUCERS) {
    const double off = fields[size_t(GRADIENT_SCALE) * count + i] - scale_mean;
    squares += off * off;
  }
  squares = block_sum(squares) / count;
  if (threadIdx.x == 0) means[FIELDS] = sqrt(squares);
}
EXPORT_KERNEL(loss_means)
