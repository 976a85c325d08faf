// CUDA's language for a host compiler; blocks.cpp runs the threads.
#include <math.h>
#include <string.h>

#include <utility>

#include "emulation.h"

#define __CUDACC__ 1
#define __device__
#define __host__
#define __global__ __attribute__((noinline))
#define __shared__ static __attribute__((section("cuda_shared")))
#define __forceinline__ inline
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))  // for _build.py to read

extern char __start_cuda_shared[] __attribute__((weak, visibility("hidden")));

namespace emulation {
// arguments are not memory of the device: nothing to check
template <class... A, size_t... I>
__attribute__((noinline, no_sanitize_thread)) void call(void (*f)(A...), void** args, std::index_sequence<I...>) {
  f(*(A*)args[I]...);
}
template <class... A> void call_with(void (*f)(A...), void** args) { call(f, args, std::index_sequence_for<A...>()); }
template <class... A> bool sizes_are(void (*)(A...), const long* sizes, long n) {
  const long expected[] = {(long)sizeof(A)..., 0};
  if (n != (long)sizeof...(A)) return false;
  for (long k = 0; k < n; k++) if (sizes[k] != expected[k]) return false;
  return true;
}
}  // namespace emulation

#define threadIdx emulation::here.thread
#define blockIdx emulation::here.block
#define blockDim emulation::here.block_size
#define gridDim emulation::here.grid
#define __syncthreads emulation::barrier
#define __shfl_xor_sync emulation::exchange
#define atomicAdd emulation::add
#define atomicMax emulation::keep_largest
static inline long long __double_as_longlong(double x) { long long bits; memcpy(&bits, &x, 8); return bits; }
// 2: wrong number or size of arguments
#define LAUNCHER(name)                                                                                              \
  extern "C" int launch_##name(const emulation::Launch& launch) {                                                   \
    if (!emulation::sizes_are(::name, launch.sizes, launch.n_arguments)) return 2;                                   \
    return emulation::launch([](void** a) { emulation::call_with(::name, a); }, launch, __start_cuda_shared);        \
  }
