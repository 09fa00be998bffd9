// Products on tensor cores, and the loads that feed them. The layouts are those of PTX ISA, "Matrix Fragments for mma.m16n8k16
// with floating point type" and "ldmatrix".
//
// Thread t of a warp holds of a 16x8 sum the places (t / 4 + 8 * (i / 2), 2 * (t % 4) + i % 2), i = 0 .. 3.
#pragma once
#include "kernel.cuh"

#ifdef EQCO_EMULATED
#include "emulator/tensor_core.h"
#else

// sum += left * right, of 16x16 and 16x8 values.
__device__ __forceinline__ void mma_bf16(float (&sum)[4], const unsigned (&left)[4], const unsigned (&right)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
}

__device__ __forceinline__ unsigned shared_address(const void *place) {
  return static_cast<unsigned>(__cvta_generic_to_shared(place));
}

// Four 8x8 matrices from shared memory. Thread t names the start of row t % 8 of matrix t / 8, and gets of each matrix the pair
// (t / 4, 2 * (t % 4)) and its right neighbour.
__device__ __forceinline__ void load_matrices(unsigned (&pairs)[4], const bf16 *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
               : "r"(shared_address(row)));
}

// The same of the transposed matrices: (2 * (t % 4), t / 4) and its neighbour below.
__device__ __forceinline__ void load_transposed(unsigned (&pairs)[4], const bf16 *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
               : "r"(shared_address(row)));
}

// Two values as neighbours, the first one in the lower half.
__device__ __forceinline__ unsigned bf16_pair(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const unsigned *>(&pair);
}

// Starts a copy of 16 bytes to shared memory; zeros if they are not `wanted`, and `source` is not read then.
__device__ __forceinline__ void copy_async(void *shared, const void *source, bool wanted) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(source),
               "r"(wanted ? 16 : 0)
               : "memory");
}

// Ends a group of copies of this thread.
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `PENDING` groups of this thread's copies are under way.
template <int PENDING>
__device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}
#endif
