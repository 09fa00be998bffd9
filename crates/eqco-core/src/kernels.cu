// All kernels of this crate, in one piece for the compiler.
#include "cuda/self_test.cu"
#include "cuda/self_test_tensor_core.cu"
#include "loss/cuda/gathered.cu"
#include "loss/cuda/gradient.cu"
#include "loss/cuda/outcome.cu"
#include "loss/cuda/sweep_bf16.cu"
#include "loss/cuda/sweep_f32.cu"
