// What CUDA sources compiled for the host call: threads of blocks (blocks.cpp), checks of their memory (checks.cpp).
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace emulation {
struct Index { unsigned x, y, z; };
struct Place { Index thread, block, block_size, grid; };
extern Place here;

struct Launch {           // as _build.py fills it
  unsigned grid, block;
  int order;              // of threads and of blocks: 0 ascending, 1 descending, 2 shuffled anew in every phase
  int device;
  int checked;            // whether the source was compiled for that
  void** arguments;
  const long* sizes;      // bytes of the arguments
  long n_arguments;
  const long* shared;     // [n_shared][2]: where the kernel's shared arrays begin in their section, and their bytes
  long n_shared;
};
// 0, or 1 if there are reports; shared: the section
int launch(void (*kernel)(void**), const Launch& launch, char* shared);

void barrier();
double exchange(unsigned mask, double x, int step, int width);
void add(unsigned long long* total, unsigned long long x);
void keep_largest(long long* most, long long x);

// ---- what is wrong, for _checks.py ----

enum Kind { RACE, UNWRITTEN, OUTSIDE, MISALIGNED, OTHER_DEVICE, APART, WAITING, BAD_EXCHANGE, INDEX, OVERFLOW };
enum Access { READ, WRITE, ATOMIC };
struct Report {
  int kind, access, other_access;
  unsigned thread, other;    // numbers in the launch
  unsigned from, other_from; // where their code goes on, in the library
  unsigned size;
  uint64_t at, array;        // address, and that of the array's begin or 0
};

// ---- between blocks.cpp and checks.cpp ----

void begin_launch(const Launch& launch, char* shared, const void* code);
void begin_block();
void pass_barrier();
int end_launch();  // whether there are reports
void report(Kind kind, unsigned thread, const void* from, unsigned other, const void* other_from);
[[noreturn]] void stop();  // of the running thread, and with it of the launch

extern uintptr_t own_stack;  // where the running thread's begins, 0 if none runs
const size_t STACK = 512 << 10;
}  // namespace emulation
