// All kernels of this crate, in one piece for the compiler.
#include "cuda/self_test.cu"
