// The momentum encoder's update of all parameters in one launch: target += share_of_new (source - target).
#include "cuda/many.cuh"

extern "C" __global__ void move_towards(const Arrays *__restrict__ table, const Piece *__restrict__ pieces,
                                        float share_of_new) {
  FOR_PIECE(table, pieces) {
    Vector<float, 8> target = eight.load<float>(of.array(0));
    const Vector<float, 8> source = eight.load<float>(of.array(1));
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
      // Exactly the source where nothing of the old is kept.
      target.values[i] = share_of_new == 1.0f ? source.values[i]
                                              : target.values[i] + share_of_new * (source.values[i] - target.values[i]);
    }
    eight.store<float>(target, of.array(0));
  }
}
EXPORT_KERNEL(move_towards)
