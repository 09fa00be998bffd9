// The gradient of a linear layer's bias: target[column] (+)= sum over rows of dy[row][column]; a thread a column.
#include "kernel.cuh"

extern "C" __global__ void sum_rows(const float *__restrict__ dy, float *__restrict__ target, unsigned rows,
                                    unsigned columns, unsigned accumulate) {
  const unsigned column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= columns) return;
  float sum = accumulate ? target[column] : 0.0f;
  for (unsigned row = 0; row < rows; ++row) sum += dy[static_cast<size_t>(row) * columns + column];
  target[column] = sum;
}
EXPORT_KERNEL(sum_rows)
