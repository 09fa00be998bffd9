// Rows of `[N, D]` to unit length; a warp a row.
#include "kernel.cuh"

// As PyTorch's `normalize`; not a maximum, which would hide a NaN.
__device__ __forceinline__ float norm_of(const float *row, unsigned dim, float smallest) {
  float sum = 0.0f;
  for (unsigned i = threadIdx.x; i < dim; i += WARP) sum += row[i] * row[i];
  const float norm = sqrtf(warp_sum(sum));
  return norm < smallest ? smallest : norm;
}

extern "C" __global__ void l2_normalize(const float *__restrict__ x, float *__restrict__ y, unsigned rows, unsigned dim,
                                        float smallest) {
  const unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const float *source = x + static_cast<size_t>(row) * dim;
  const float scale = 1.0f / norm_of(source, dim, smallest);
  for (unsigned i = threadIdx.x; i < dim; i += WARP) y[static_cast<size_t>(row) * dim + i] = source[i] * scale;
}
EXPORT_KERNEL(l2_normalize)

// In place: dx = (dy - y (y . dy)) / norm, or dy / smallest where the norm is smaller and thus a constant.
extern "C" __global__ void l2_normalize_gradient(const float *__restrict__ x, const float *__restrict__ y,
                                                 float *__restrict__ dy, unsigned rows, unsigned dim, float smallest) {
  const unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const size_t start = static_cast<size_t>(row) * dim;
  const float norm = norm_of(x + start, dim, smallest);
  float along = 0.0f;
  for (unsigned i = threadIdx.x; i < dim; i += WARP) along += y[start + i] * dy[start + i];
  along = warp_sum(along);
  if (!(norm > smallest)) along = 0.0f;
  const float scale = 1.0f / norm;
  for (unsigned i = threadIdx.x; i < dim; i += WARP) dy[start + i] = (dy[start + i] - y[start + i] * along) * scale;
}
EXPORT_KERNEL(l2_normalize_gradient)
