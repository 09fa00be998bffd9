// What the emulated tensor cores are tested with.
#include "tensor_core.cuh"

// One warp: target[0] = left * right^T and target[1] = left * right, of 16x16 values each.
extern "C" __global__ void self_test_products(const bf16 *__restrict__ left, const bf16 *__restrict__ right,
                                              float *__restrict__ target) {
  // Rows of 24 values begin at multiples of 16 bytes.
  constexpr unsigned SIZE = 16, PITCH = 24;
  DYNAMIC_SHARED(bf16, a);
  bf16 *b = a + SIZE * PITCH;
  const unsigned row = threadIdx.x / 2, half = threadIdx.x % 2 * 8;
  copy_async(a + row * PITCH + half, left + row * SIZE + half, true);
  copy_async(b + row * PITCH + half, right + row * SIZE + half, true);
  copy_commit();
  copy_wait<0>();
  __syncthreads();
  const unsigned r = threadIdx.x % 8, matrix = threadIdx.x / 8;
  unsigned of_left[4], straight[4], transposed[4];
  load_matrices(of_left, a + (r + matrix % 2 * 8) * PITCH + matrix / 2 * 8);
  load_matrices(straight, b + (r + matrix / 2 * 8) * PITCH + matrix % 2 * 8);
  load_transposed(transposed, b + (r + matrix % 2 * 8) * PITCH + matrix / 2 * 8);
  float sums[2][2][4] = {};
  for (unsigned side = 0; side < 2; ++side) {
    mma_bf16(sums[0][side], of_left, {straight[2 * side], straight[2 * side + 1]});
    mma_bf16(sums[1][side], of_left, {transposed[2 * side], transposed[2 * side + 1]});
  }
  for (unsigned product = 0; product < 2; ++product)
    for (unsigned side = 0; side < 2; ++side)
      for (unsigned i = 0; i < 4; ++i) {
        const unsigned at_row = threadIdx.x / 4 + 8 * (i / 2), at_column = side * 8 + 2 * (threadIdx.x % 4) + i % 2;
        target[(product * SIZE + at_row) * SIZE + at_column] = sums[product][side][i];
      }
}
EXPORT_KERNEL(self_test_products)

// Copies every other 16 bytes and zeros for the rest, and packs what was copied in pairs again.
extern "C" __global__ void self_test_copy(const float *__restrict__ source, unsigned *__restrict__ target) {
  DYNAMIC_SHARED(float, copied);
  const unsigned first = threadIdx.x * 4;
  copy_async(copied + first, source + first, threadIdx.x % 2 == 0);
  copy_commit();
  copy_wait<0>();
  __syncthreads();
  for (unsigned i = 0; i < 4; i += 2) target[(first + i) / 2] = bf16_pair(copied[first + i], copied[first + i + 1]);
}
EXPORT_KERNEL(self_test_copy)
