// Loops that reach one core's limits, for ceilings.py. LANES doubles make one vector.
#include <chrono>
#include <stdint.h>

typedef double lanes __attribute__((vector_size(8 * LANES)));

static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

extern "C" {

// seconds of `repeats` times 12 independent fused multiply-adds, the vectors in registers
double fused_multiply_adds(int64_t repeats) {
  lanes sum[12], factor = lanes{} + 0.999999, term = lanes{} + 1e-6;
#pragma GCC unroll 12
  for (int i = 0; i < 12; i++) sum[i] = lanes{} + i;
  const double start = now();
  for (int64_t r = 0; r < repeats; r++) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++) {
      sum[i] = sum[i] * factor + term;
#if defined(__AVX__)
      asm volatile("" : "+v"(sum[i]));
#endif
    }
  }
  const double seconds = now() - start;
  volatile double keep = 0;
#pragma GCC unroll 12
  for (int i = 0; i < 12; i++) keep = keep + sum[i][0];
  return seconds;
}

// seconds of `repeats` times x += 1 over n vectors
double read_modify_write(lanes* x, int64_t n, int64_t repeats) {
  const double start = now();
  for (int64_t r = 0; r < repeats; r++) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < n; i++) x[i] += 1;
    asm volatile("" ::: "memory");
  }
  return now() - start;
}

// seconds of `repeats` times y = x over n vectors
double copy(lanes* y, const lanes* x, int64_t n, int64_t repeats) {
  const double start = now();
  for (int64_t r = 0; r < repeats; r++) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < n; i++) y[i] = x[i];
    asm volatile("" ::: "memory");
  }
  return now() - start;
}
}
