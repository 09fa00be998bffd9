// Cross-entropy of rows of logits `[N, C]` with a label each; a warp a row.
#include "kernel.cuh"

// Softmax p of every row, and ln sum exp(x) - x[label].
extern "C" __global__ void cross_entropy_rows(const float *__restrict__ x, const unsigned *__restrict__ labels,
                                              float *__restrict__ p, double *__restrict__ losses, unsigned rows,
                                              unsigned classes) {
  const unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const size_t start = static_cast<size_t>(row) * classes;
  float largest = -INFINITY;
  for (unsigned i = threadIdx.x; i < classes; i += WARP) largest = fmaxf(largest, x[start + i]);
  largest = warp_max(largest);
  double sum = 0.0;
  for (unsigned i = threadIdx.x; i < classes; i += WARP) {
    const float power = expf(x[start + i] - largest);
    p[start + i] = power;
    sum += power;
  }
  sum = warp_sum(sum);
  const float scale = static_cast<float>(1.0 / sum);
  for (unsigned i = threadIdx.x; i < classes; i += WARP) p[start + i] *= scale;
  if (threadIdx.x > 0) return;
  // The difference first: the logarithm would vanish beside a large logit.
  const double below = static_cast<double>(largest) - static_cast<double>(x[start + labels[row]]);
  losses[row] = log(sum) + below;
}
EXPORT_KERNEL(cross_entropy_rows)

// Mean of the rows' losses, by one warp, in an order that their number decides.
extern "C" __global__ void cross_entropy_mean(const double *__restrict__ losses, float *__restrict__ mean,
                                              unsigned rows) {
  double sum = 0.0;
  for (unsigned row = threadIdx.x; row < rows; row += WARP) sum += losses[row];
  sum = warp_sum(sum);
  if (threadIdx.x == 0) *mean = static_cast<float>(sum / rows);
}
EXPORT_KERNEL(cross_entropy_mean)

// In place: the gradient of the logits, (softmax - one at the label) outer / N. `outer` is one number.
extern "C" __global__ void cross_entropy_gradient(const unsigned *__restrict__ labels, const float *__restrict__ outer,
                                                  float *__restrict__ p, unsigned rows, unsigned classes) {
  const unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const size_t start = static_cast<size_t>(row) * classes;
  const float scale = *outer / static_cast<float>(rows);
  const unsigned label = labels[row];
  for (unsigned i = threadIdx.x; i < classes; i += WARP) {
    const float hit = i == label ? 1.0f : 0.0f;
    p[start + i] = (p[start + i] - hit) * scale;
  }
}
EXPORT_KERNEL(cross_entropy_gradient)
