// What the emulator itself is tested with.
#include "kernel.cuh"

// target[block] = sum of the block's `count` values: warps by shuffles, then across warps through shared memory.
extern "C" __global__ void self_test_sum(const float *__restrict__ source, float *__restrict__ target, unsigned count) {
  __shared__ float partial[32];
  float sum = 0.0f;
  for (unsigned i = threadIdx.x; i < count; i += blockDim.x) sum += source[blockIdx.x * count + i];
  sum = warp_sum(sum);
  if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP] = sum;
  __syncthreads();
  if (threadIdx.x < WARP) {
    sum = warp_sum(threadIdx.x < blockDim.x / WARP ? partial[threadIdx.x] : 0.0f);
    if (threadIdx.x == 0) target[blockIdx.x] = sum;
  }
}
EXPORT_KERNEL(self_test_sum)

// Reverses each block's values through shared memory; `faulty` leaves the barrier out, or lets half of the threads miss it.
extern "C" __global__ void self_test_reverse(float *__restrict__ values, unsigned faulty) {
  DYNAMIC_SHARED(float, copy);
  const unsigned first = blockIdx.x * blockDim.x;
  copy[threadIdx.x] = values[first + threadIdx.x];
  if (faulty == 0 || (faulty == 2 && threadIdx.x % 2 == 0)) __syncthreads();
  values[first + threadIdx.x] = copy[blockDim.x - 1 - threadIdx.x];
}
EXPORT_KERNEL(self_test_reverse)

// bf16 to f32 and back, 16 bytes a thread.
extern "C" __global__ void self_test_round(const float *__restrict__ source, bf16 *__restrict__ target) {
  const unsigned first = threadIdx.x * Pack<bf16>::COUNT;
  Pack<bf16> pack;
  for (unsigned i = 0; i < Pack<bf16>::COUNT; ++i) pack.values[i] = source[first + i];
  pack.store(target + first);
}
EXPORT_KERNEL(self_test_round)
