// CUDA's language for a host compiler: the threads of a block run one after the other, phase by phase.
//
// A thread runs until it reaches a barrier (of its block) or an exchange (of its warp) and goes on when all the others
// have come there too, so any order of threads is possible; a result that depends on the order shows a missing barrier.
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <utility>
#include <vector>

#define __CUDACC__ 1
#define __device__
#define __host__
#define __global__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)

namespace emulation {
struct Index { unsigned x, y, z; };
enum Where { READY, AT_BARRIER, AT_EXCHANGE, DONE };
struct Thread {
  ucontext_t start;
  jmp_buf here;
  Where where;
  bool started;
  std::vector<char> stack;
};
static Index thread_index, block_index, block_size, grid_size;
static std::vector<Thread> threads;
static std::vector<double> exchanged;
static ucontext_t scheduler_start;
static jmp_buf scheduler;
static void (*body)(void**);
static void** arguments;

static void wait(Where where) {
  Thread& t = threads[thread_index.x];
  t.where = where;
  if (!_setjmp(t.here)) _longjmp(scheduler, 1);
}

static void run_thread() {
  body(arguments);
  threads[thread_index.x].where = DONE;
  _longjmp(scheduler, 1);
}

// a thread from where it waits to where it waits next
static void go_on(unsigned k) {
  Thread& t = threads[k];
  thread_index = {k, 0, 0};
  if (_setjmp(scheduler)) return;
  if (t.started) _longjmp(t.here, 1);
  t.started = true;
  getcontext(&t.start);
  if (t.stack.empty()) t.stack.resize(512 << 10);
  t.start.uc_stack.ss_sp = t.stack.data();
  t.start.uc_stack.ss_size = t.stack.size();
  t.start.uc_link = 0;
  makecontext(&t.start, run_thread, 0);
  setcontext(&t.start);
}

static unsigned state = 1;
static unsigned random_below(unsigned n) { state = state * 1664525u + 1013904223u; return (state >> 8) % n; }

// order 0 ascending, 1 descending, 2 shuffled anew in every phase
static std::vector<unsigned> ordered(unsigned n, int order) {
  std::vector<unsigned> list(n);
  for (unsigned k = 0; k < n; k++) list[k] = order == 1 ? n - 1 - k : k;
  if (order == 2) for (unsigned k = n; k > 1; k--) std::swap(list[k - 1], list[random_below(k)]);
  return list;
}

static bool all_at(unsigned first, unsigned last, Where where) {
  for (unsigned k = first; k < last; k++) if (threads[k].where != where) return false;
  return true;
}

// 0, or 1 if threads wait for others that never come
static int run_block(unsigned n, int order) {
  for (unsigned k = 0; k < n; k++) { threads[k].where = READY; threads[k].started = false; }
  while (!all_at(0, n, DONE)) {
    bool moved = false;
    for (unsigned k : ordered(n, order)) if (threads[k].where == READY) { go_on(k); moved = true; }
    if (all_at(0, n, AT_BARRIER)) {
      for (Thread& t : threads) t.where = READY;
      moved = true;
    }
    for (unsigned w = 0; w < n; w += 32)
      if (all_at(w, w + 32, AT_EXCHANGE)) {
        for (unsigned k = w; k < w + 32; k++) threads[k].where = READY;
        moved = true;
      }
    if (!moved) return 1;
  }
  return 0;
}

static int launch(void (*kernel)(void**), unsigned grid, unsigned block, int order, void** args) {
  body = kernel; arguments = args; state = 1;
  block_size = {block, 1, 1}; grid_size = {grid, 1, 1};
  if (threads.size() != block) { threads.clear(); threads.resize(block); }
  exchanged.resize(block);
  for (unsigned b : ordered(grid, order)) {
    block_index = {b, 0, 0};
    if (run_block(block, order)) return 1;
  }
  return 0;
}

static double exchange(double x, int other) {
  const unsigned k = thread_index.x;
  exchanged[k] = x;
  wait(AT_EXCHANGE);
  const double result = exchanged[k ^ other];
  wait(AT_EXCHANGE);
  return result;
}

template <class... A, size_t... I> void call(void (*f)(A...), void** args, std::index_sequence<I...>) { f(*(A*)args[I]...); }
template <class... A> void call_with(void (*f)(A...), void** args) { call(f, args, std::index_sequence_for<A...>()); }
template <class... A> bool sizes_are(void (*)(A...), const long* sizes, long n) {
  const long expected[] = {(long)sizeof(A)..., 0};
  if (n != (long)sizeof...(A)) return false;
  for (long k = 0; k < n; k++) if (sizes[k] != expected[k]) return false;
  return true;
}
}  // namespace emulation

#define threadIdx emulation::thread_index
#define blockIdx emulation::block_index
#define blockDim emulation::block_size
#define gridDim emulation::grid_size
#define __syncthreads() emulation::wait(emulation::AT_BARRIER)
#define __shfl_xor_sync(mask, x, step, width) emulation::exchange(x, step)
static inline void atomicAdd(unsigned long long* total, unsigned long long x) { *total += x; }
static inline void atomicMax(long long* most, long long x) { if (x > *most) *most = x; }
static inline long long __double_as_longlong(double x) { long long bits; memcpy(&bits, &x, 8); return bits; }
// 2: wrong number or size of arguments, 1: threads that wait for ever
#define LAUNCHER(name)                                                                                               \
  extern "C" int launch_##name(unsigned grid, unsigned block, int order, void** args, const long* argument_sizes, long n) { \
    if (!emulation::sizes_are(::name, argument_sizes, n)) return 2;                                                             \
    return emulation::launch([](void** a) { emulation::call_with(::name, a); }, grid, block, order, args);            \
  }
