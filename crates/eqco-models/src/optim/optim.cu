// Updates of all parameters in one launch, in the forms of `sgd.rs`, `lars.rs` and `adamw.rs`. `number` of each parameter is
// its weight decay.
#include "../cuda/many.cuh"

enum Role : unsigned { WEIGHT = 0, GRADIENT = 1, FIRST_MEMORY = 2, SECOND_MEMORY = 3 };

extern "C" __global__ void sgd(const Arrays *__restrict__ table, const Piece *__restrict__ pieces, float rate,
                               float momentum, unsigned nesterov) {
  FOR_PIECE(table, pieces) {
    Vector<float, 8> w = eight.load<float>(of.array(WEIGHT)), v = eight.load<float>(of.array(FIRST_MEMORY));
    const Vector<float, 8> gradient = eight.load<float>(of.array(GRADIENT));
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
      const float g = gradient.values[i] + of.number * w.values[i];
      v.values[i] = momentum * v.values[i] + g;
      w.values[i] -= rate * (nesterov ? g + momentum * v.values[i] : v.values[i]);
    }
    eight.store<float>(v, of.array(FIRST_MEMORY));
    eight.store<float>(w, of.array(WEIGHT));
  }
}
EXPORT_KERNEL(sgd)

// Sums of w^2 and (g + decay w)^2 of each piece, in f64 and in a fixed order.
extern "C" __global__ void lars_squares(const Arrays *__restrict__ table, const Piece *__restrict__ pieces,
                                        double *__restrict__ squares) {
  __shared__ double sums[2][256];
  double weight = 0.0, gradient = 0.0;
  FOR_PIECE(table, pieces) {
    const Vector<float, 8> w = eight.load<float>(of.array(WEIGHT)), g = eight.load<float>(of.array(GRADIENT));
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
      const double decayed = static_cast<double>(g.values[i]) + static_cast<double>(of.number) * w.values[i];
      weight += static_cast<double>(w.values[i]) * w.values[i];
      gradient += decayed * decayed;
    }
  }
  sums[0][threadIdx.x] = weight;
  sums[1][threadIdx.x] = gradient;
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      sums[0][threadIdx.x] += sums[0][threadIdx.x + half];
      sums[1][threadIdx.x] += sums[1][threadIdx.x + half];
    }
    __syncthreads();
  }
  if (threadIdx.x < 2) squares[2 * blockIdx.x + threadIdx.x] = sums[threadIdx.x][0];
}
EXPORT_KERNEL(lars_squares)

// The rate of every parameter: rate * trust * norm(w) / norm(g + decay w), or rate where a norm is 0 or `trust[parameter]` is,
// which it is for parameters that are not scaled. `first_piece` has one entry more than there are parameters.
extern "C" __global__ void lars_rates(const double *__restrict__ squares, const unsigned *__restrict__ first_piece,
                                      const float *__restrict__ trust, float *__restrict__ rates, unsigned parameters,
                                      float rate) {
  const unsigned parameter = blockIdx.x * blockDim.x + threadIdx.x;
  if (parameter >= parameters) return;
  double weight = 0.0, gradient = 0.0;
  for (unsigned piece = first_piece[parameter]; piece < first_piece[parameter + 1]; ++piece) {
    weight += squares[2 * piece];
    gradient += squares[2 * piece + 1];
  }
  const bool scaled = trust[parameter] > 0.0f && weight > 0.0 && gradient > 0.0;
  rates[parameter] = static_cast<float>(scaled ? rate * trust[parameter] * sqrt(weight / gradient) : rate);
}
EXPORT_KERNEL(lars_rates)

extern "C" __global__ void lars(const Arrays *__restrict__ table, const Piece *__restrict__ pieces,
                                const float *__restrict__ rates, float momentum) {
  const float rate = rates[pieces[blockIdx.x].arrays];
  FOR_PIECE(table, pieces) {
    Vector<float, 8> w = eight.load<float>(of.array(WEIGHT)), v = eight.load<float>(of.array(FIRST_MEMORY));
    const Vector<float, 8> g = eight.load<float>(of.array(GRADIENT));
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
      v.values[i] = momentum * v.values[i] + rate * (g.values[i] + of.number * w.values[i]);
      w.values[i] -= v.values[i];
    }
    eight.store<float>(v, of.array(FIRST_MEMORY));
    eight.store<float>(w, of.array(WEIGHT));
  }
}
EXPORT_KERNEL(lars)

// `keep` = 1 - rate * decay is made here, since decay is a parameter's own. `rate` has the first moment's correction in it,
// `scale` is 1 / sqrt of the second's.
extern "C" __global__ void adamw(const Arrays *__restrict__ table, const Piece *__restrict__ pieces, float plain_rate,
                                 float rate, float scale, float epsilon, float new_first, float keep_second,
                                 float new_second) {
  FOR_PIECE(table, pieces) {
    Vector<float, 8> w = eight.load<float>(of.array(WEIGHT)), m = eight.load<float>(of.array(FIRST_MEMORY));
    Vector<float, 8> v = eight.load<float>(of.array(SECOND_MEMORY));
    const Vector<float, 8> g = eight.load<float>(of.array(GRADIENT));
    const float keep = 1.0f - plain_rate * of.number;
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
      m.values[i] += new_first * (g.values[i] - m.values[i]);
      v.values[i] = keep_second * v.values[i] + new_second * g.values[i] * g.values[i];
      w.values[i] = keep * w.values[i] - rate * m.values[i] / (sqrtf(v.values[i]) * scale + epsilon);
    }
    eight.store<float>(m, of.array(FIRST_MEMORY));
    eight.store<float>(v, of.array(SECOND_MEMORY));
    eight.store<float>(w, of.array(WEIGHT));
  }
}
EXPORT_KERNEL(adamw)
