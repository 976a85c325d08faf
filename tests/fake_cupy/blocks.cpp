// The threads of a block as fibers: they run one after the other, phase by phase.
//
// A thread runs until it reaches a barrier (of its block) or an exchange (of its warp) and goes on when all the others
// have come there too, so any order of threads is possible; a result that depends on the order shows a missing barrier.
// Where they have come must be one place of the code: CUDA leaves open what becomes of threads that meet at two.
#include <setjmp.h>
#include <ucontext.h>

#include <memory>
#include <utility>
#include <vector>

#include "emulation.h"

namespace emulation {
Place here;
uintptr_t own_stack;

enum Where { READY, AT_BARRIER, AT_EXCHANGE, DONE };
struct Thread {
  ucontext_t start;
  jmp_buf here;
  Where where;
  const void* from;
  bool started;
};
static std::vector<Thread> threads;
static std::unique_ptr<char[]> stacks;
static std::vector<double> exchanged;
static jmp_buf scheduler;
static bool stopped;
static void (*body)(void**);
static void** arguments;

static void wait(Where where, const void* from) {
  Thread& t = threads[here.thread.x];
  t.where = where;
  t.from = from;
  if (!_setjmp(t.here)) _longjmp(scheduler, 1);
}

static void run_thread() {
  body(arguments);
  threads[here.thread.x].where = DONE;
  _longjmp(scheduler, 1);
}

void stop() {
  stopped = true;
  _longjmp(scheduler, 1);
}

// a thread from where it waits to where it waits next
static void go_on(unsigned k) {
  Thread& t = threads[k];
  here.thread = {k, 0, 0};
  own_stack = (uintptr_t)&stacks[k * STACK];
  if (_setjmp(scheduler)) { own_stack = 0; return; }
  if (t.started) _longjmp(t.here, 1);
  t.started = true;
  getcontext(&t.start);
  t.start.uc_stack.ss_sp = &stacks[k * STACK];
  t.start.uc_stack.ss_size = STACK;
  t.start.uc_link = 0;
  makecontext(&t.start, run_thread, 0);
  setcontext(&t.start);
}

static unsigned state = 1;
static unsigned random_below(unsigned n) { state = state * 1664525u + 1013904223u; return (state >> 8) % n; }

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

static void report_threads(Kind kind, unsigned a, unsigned b) {
  const unsigned first = here.block.x * here.block_size.x;
  report(kind, first + a, threads[a].from, first + b, threads[b].from);
}

// threads that have all come to a barrier or an exchange, to the same one, go on
static bool release(unsigned first, unsigned last) {
  for (unsigned k = first; k < last; k++) {
    if (threads[k].from != threads[first].from) { report_threads(APART, first, k); return false; }
    threads[k].where = READY;
  }
  return true;
}

// whether all threads came to their end
static bool run_block(unsigned n, int order) {
  for (Thread& t : threads) { t.where = READY; t.from = 0; t.started = false; }
  while (!all_at(0, n, DONE)) {
    bool moved = false;
    for (unsigned k : ordered(n, order))
      if (threads[k].where == READY) {
        go_on(k);
        if (stopped) return false;
        if (threads[k].where == DONE) threads[k].from = 0;
        moved = true;
      }
    if (all_at(0, n, AT_BARRIER)) {
      if (!release(0, n)) return false;
      pass_barrier();
      moved = true;
    }
    for (unsigned w = 0; w < n; w += 32)
      if (all_at(w, w + 32, AT_EXCHANGE)) {
        if (!release(w, w + 32)) return false;
        moved = true;
      }
    if (!moved) {  // one that waits, and one of those it waits for
      unsigned a = 0, b = 0;
      while (threads[a].where == DONE) a++;
      const unsigned first = threads[a].where == AT_EXCHANGE ? a / 32 * 32 : 0;
      for (b = first; threads[b].where == threads[a].where;) b++;
      report_threads(WAITING, a, b);
      return false;
    }
  }
  return true;
}

int launch(void (*kernel)(void**), const Launch& launch, char* shared) {
  body = kernel;
  arguments = launch.arguments;
  state = 1;
  stopped = false;
  here.block_size = {launch.block, 1, 1};
  here.grid = {launch.grid, 1, 1};
  if (threads.size() != launch.block) {
    threads = std::vector<Thread>(launch.block);
    stacks.reset(new char[launch.block * STACK]);
  }
  exchanged.resize(launch.block);
  begin_launch(launch, shared, (const void*)kernel);
  for (unsigned b : ordered(launch.grid, launch.order)) {
    here.block = {b, 0, 0};
    begin_block();
    if (!run_block(launch.block, launch.order)) break;
  }
  return end_launch();
}

void barrier() { wait(AT_BARRIER, __builtin_return_address(0)); }

double exchange(unsigned mask, double x, int step, int width) {
  const unsigned k = here.thread.x;
  const void* from = __builtin_return_address(0);
  if (mask != 0xffffffffu || width != 32 || step < 0 || step >= 32) {
    report(BAD_EXCHANGE, here.block.x * here.block_size.x + k, from, 0, 0);
    stop();
  }
  exchanged[k] = x;
  wait(AT_EXCHANGE, from);
  const double result = exchanged[k ^ step];
  wait(AT_EXCHANGE, from);
  return result;
}
}  // namespace emulation
