// Gradients that several parts add up to.
#include "sweep.cuh"

namespace gradient {

// target[j] = base[j] - coefficient[p] * queries[p] + the sum of all parts of j, in their order, where p is the query that j
// is the positive of: `partner` places on, cyclically. `base`, `queries` and parts may be absent. A thread takes one value.
template <class T>
__device__ void join(const float *base, const T *queries, const float *known, unsigned partner, const float *parts,
                     unsigned splits, unsigned count, unsigned dim, T *target) {
  const size_t size = size_t(count) * dim, place = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (place >= size) return;
  float sum = base ? base[place] : 0.0f;
  if (queries) {
    const unsigned query = (unsigned(place / dim) + partner) % count;
    sum -= known[2 * size_t(count) + query] * to_float(queries[size_t(query) * dim + place % dim]);
  }
  for (unsigned split = 0; split < splits; ++split) sum += parts[split * size + place];
  target[place] = from_float<T>(sum);
}

} // namespace gradient

#define JOIN_KERNEL(T, TYPE)                                                                                           \
  extern "C" __global__ void gradient_join_##T(const float *base, const TYPE *queries, const float *known,             \
                                               unsigned partner, const float *parts, unsigned splits, unsigned count,  \
                                               unsigned dim, TYPE *target) {                                           \
    gradient::join(base, queries, known, partner, parts, splits, count, dim, target);                                  \
  }                                                                                                                    \
  EXPORT_KERNEL(gradient_join_##T)

JOIN_KERNEL(f32, float)
JOIN_KERNEL(bf16, bf16)
