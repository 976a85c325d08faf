// Checks of every access to memory that a kernel makes: what compute-sanitizer looks for on a device.
//
// Sources compiled with -fsanitize=thread call __tsan_read8 and the like at each access; these are ours, not the library's.
// They ask: is it in an array of this device? Has somebody written it? Does nothing but luck put it before or after
// an access of another thread? Within a launch only barriers order threads, those of one block; shuffles order nothing, and
// neither do the blocks' turns. So what is found does not depend on the order in which threads run here. Indices of local
// arrays and integer arithmetic are checked by the handlers of -fsanitize=undefined in the same way.
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "emulation.h"

namespace emulation {
struct Thread { unsigned number, from; };  // number in the launch + 1, 0 for none; where its code is
// Threads of a launch that made one kind of access to an item: two of the latest phase, and one of a block before that.
// A phase is what a block does between two barriers; phases are counted through all launches.
struct Seen {
  Thread first, second, elsewhere;
  unsigned phase;
};
struct Item { Seen seen[3]; };

struct Array {
  uintptr_t begin;
  size_t bytes, item;
  int device;
  bool shared;
  std::unique_ptr<Item, void (*)(void*)> items;
  std::vector<char> written;
};
static std::map<uintptr_t, Array> arrays;
static Array* latest;

static unsigned phase = 1, launch_phase, block_phase;
static int device;
static bool checked;
static uintptr_t code;
static std::vector<Report> reports;

static void add_array(uintptr_t begin, size_t bytes, size_t item, int device, bool shared, bool written) {
  const size_t n = (bytes + item - 1) / item;
  Item* items = (Item*)calloc(n, sizeof(Item));  // pages that nobody touches stay without memory
  arrays.erase(begin);
  arrays.emplace(begin, Array{begin, bytes, item, device, shared, {items, free}, std::vector<char>(n, written)});
  latest = 0;
}

static Array* find(uintptr_t at) {
  if (latest && at - latest->begin < latest->bytes) return latest;
  auto next = arrays.upper_bound(at);
  if (next == arrays.begin()) return 0;
  Array& array = (--next)->second;
  return at - array.begin < array.bytes ? latest = &array : 0;
}

static unsigned own_number() { return here.block.x * here.block_size.x + here.thread.x; }
static unsigned block_of(Thread t) { return (t.number - 1) / here.block_size.x; }

static void add_report(const Report& made) {
  for (const Report& r : reports)
    if (r.kind == made.kind && r.from == made.from && r.other_from == made.other_from) return;
  reports.push_back(made);
}

void report(Kind kind, unsigned thread, const void* from, unsigned other, const void* other_from) {
  auto place = [](const void* p) { return p ? (unsigned)((uintptr_t)p - code) : 0; };
  add_report({kind, READ, READ, thread, other, place(from), place(other_from), 0, 0, 0});
}

// one of `seen` that nothing orders with an access of `me` now
static const Thread* unordered(const Seen& seen, Thread me, unsigned oldest) {
  if (seen.phase < oldest) return 0;
  if (seen.elsewhere.number) return &seen.elsewhere;
  if (seen.phase < phase) return block_of(seen.first) == here.block.x ? 0 : &seen.first;
  return seen.first.number != me.number ? &seen.first : seen.second.number ? &seen.second : 0;
}

static void see(Seen& seen, Thread me, unsigned oldest) {
  if (seen.phase < oldest) {
    seen = {me, {}, {}, phase};
  } else if (seen.phase < phase) {
    seen = {me, {}, block_of(seen.first) == here.block.x ? seen.elsewhere : seen.first, phase};
  } else if (seen.first.number != me.number && !seen.second.number) {
    seen.second = me;
  }
}

static void access(const volatile void* address, size_t size, Access kind, const void* from) {
  const uintptr_t at = (uintptr_t)address;
  if (!checked || !own_stack || at - own_stack < STACK || at - (uintptr_t)&here < sizeof here) return;
  const Thread me = {own_number() + 1, (unsigned)((uintptr_t)from - code)};
  Report made = {OUTSIDE, kind, READ, me.number - 1, 0, me.from, 0, (unsigned)size, at, 0};
  Array* array = find(at);
  if (array) made.array = array->begin;
  if (array && !array->shared && array->device != device) made.kind = OTHER_DEVICE;
  else if (size <= 16 && at % (size < 8 ? size : 8)) made.kind = MISALIGNED;
  else if (array && at + size <= array->begin + array->bytes) made.kind = RACE;
  if (made.kind != RACE) {  // as on a device, where the launch ends here as well
    add_report(made);
    stop();
  }
  const unsigned oldest = array->shared ? block_phase : launch_phase;
  const size_t last = (at + size - 1 - array->begin) / array->item;
  for (size_t k = (at - array->begin) / array->item; k <= last; k++) {
    Item& item = array->items.get()[k];
    for (int other = READ; other <= ATOMIC; other++) {
      if (other == kind && kind != WRITE) continue;
      if (const Thread* t = unordered(item.seen[other], me, oldest)) {
        made.kind = RACE;
        made.other_access = other;
        made.other = t->number - 1;
        made.other_from = t->from;
        add_report(made);
      }
    }
    if (kind != WRITE && !array->written[k]) {
      made.kind = UNWRITTEN;
      made.other_from = 0;
      add_report(made);
    }
    if (kind != READ) array->written[k] = 1;
    see(item.seen[kind], me, oldest);
  }
}

static void undefined(Kind kind, const void* from) {
  report(kind, own_number(), from, 0, 0);
  stop();
}

void begin_launch(const Launch& launch, char* shared, const void* kernel) {
  Dl_info library;
  dladdr(kernel, &library);
  code = (uintptr_t)library.dli_fbase;
  device = launch.device;
  checked = launch.checked;
  reports.clear();
  launch_phase = ++phase;
  for (long k = 0; k < launch.n_shared; k++)
    add_array((uintptr_t)shared + launch.shared[2 * k], launch.shared[2 * k + 1], 4, device, true, false);
}

void begin_block() {
  block_phase = ++phase;
  for (auto& [begin, array] : arrays)
    if (array.shared) {
      std::fill(array.written.begin(), array.written.end(), 0);
      memset((void*)begin, 0xff, array.bytes);  // NaN
    }
}

void pass_barrier() { phase++; }

int end_launch() {
  latest = 0;
  for (auto it = arrays.begin(); it != arrays.end();) it = it->second.shared ? arrays.erase(it) : std::next(it);
  return !reports.empty();
}

void add(unsigned long long* total, unsigned long long x) {
  access(total, 8, ATOMIC, __builtin_return_address(0));
  *total += x;
}

void keep_largest(long long* most, long long x) {
  access(most, 8, ATOMIC, __builtin_return_address(0));
  if (x > *most) *most = x;
}
}  // namespace emulation

// ---- for _checks.py ----

extern "C" void emulation_track(uintptr_t begin, size_t bytes, size_t item, int device, int written) {
  emulation::add_array(begin, bytes, item, device, false, written);
}
extern "C" void emulation_forget(uintptr_t begin) {
  emulation::arrays.erase(begin);
  emulation::latest = 0;
}
extern "C" void emulation_mark(uintptr_t begin, size_t bytes, int written) {
  emulation::Array* array = emulation::find(begin);
  if (!array || !bytes) return;
  const size_t last = (begin + bytes - 1 - array->begin) / array->item;
  for (size_t k = (begin - array->begin) / array->item; k <= last; k++) array->written[k] = written;
}
extern "C" long emulation_reports(emulation::Report* out, long most) {
  long n = 0;
  for (; n < most && n < (long)emulation::reports.size(); n++) out[n] = emulation::reports[n];
  return n;
}

// ---- what the compiler calls ----

#define FROM __builtin_return_address(0)
#define ACCESSES(n)                                                                                                  \
  extern "C" void __tsan_read##n(void* p) { emulation::access(p, n, emulation::READ, FROM); }                         \
  extern "C" void __tsan_write##n(void* p) { emulation::access(p, n, emulation::WRITE, FROM); }                       \
  extern "C" void __tsan_unaligned_read##n(void* p) { emulation::access(p, n, emulation::READ, FROM); }               \
  extern "C" void __tsan_unaligned_write##n(void* p) { emulation::access(p, n, emulation::WRITE, FROM); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
extern "C" void __tsan_read_range(void* p, size_t n) { emulation::access(p, n, emulation::READ, FROM); }
extern "C" void __tsan_write_range(void* p, size_t n) { emulation::access(p, n, emulation::WRITE, FROM); }
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}

#define HANDLER(name, kind) \
  extern "C" void __ubsan_handle_##name##_abort() { emulation::undefined(emulation::kind, FROM); }
HANDLER(out_of_bounds, INDEX)
HANDLER(add_overflow, OVERFLOW)
HANDLER(sub_overflow, OVERFLOW)
HANDLER(mul_overflow, OVERFLOW)
HANDLER(negate_overflow, OVERFLOW)
HANDLER(divrem_overflow, OVERFLOW)
HANDLER(shift_out_of_bounds, OVERFLOW)
HANDLER(float_cast_overflow, OVERFLOW)
