// Runs a grid of emulated threads: one block after the other, the threads of a block as fibres.
#include "emulator.h"

#include "fiber.h"

#include <cstdlib>

namespace emulator {

dim3 thread_index, block_index, block_size, grid_size;

namespace {

constexpr size_t STACK = 256 * 1024;
constexpr unsigned MOST_THREADS = 1024;
constexpr unsigned WARP = 32;

enum class State { Ready, AtWarp, AtBlock, Done };

struct Thread {
  Fiber fiber;
  State state;
  char *stack;
};

Registration *kernels = nullptr;

Thread threads[MOST_THREADS];
uint64_t exchanged[MOST_THREADS * WORDS_OF_LANE];
Fiber scheduler;
unsigned current;
unsigned count;
char *shared_memory = nullptr;
size_t shared_capacity = 0;

Kernel kernel_to_run;
void **arguments_to_pass;

void enter() {
  kernel_to_run(arguments_to_pass);
  threads[current].state = State::Done;
  switch_fiber(threads[current].fiber, scheduler);
}

void wait_as(State state) {
  Thread &self = threads[current];
  self.state = state;
  switch_fiber(self.fiber, scheduler);
}

void resume(unsigned index) {
  current = index;
  const unsigned plane = block_size.x * block_size.y;
  thread_index = dim3{index % block_size.x, index % plane / block_size.x, index / plane};
  switch_fiber(scheduler, threads[index].fiber);
}

void prepare() {
  for (unsigned index = 0; index < count; ++index) {
    Thread &thread = threads[index];
    if (!thread.stack) thread.stack = static_cast<char *>(std::aligned_alloc(64, STACK));
    start_fiber(thread.fiber, thread.stack, STACK, enter);
    thread.state = State::Ready;
  }
}

// Lets threads [first, end) go on if all of them wait in the same way. `mixed` tells that some wait for others that have ended.
bool release(unsigned first, unsigned end, State state, bool &mixed) {
  unsigned waiting = 0, done = 0;
  for (unsigned index = first; index < end; ++index) {
    waiting += threads[index].state == state;
    done += threads[index].state == State::Done;
  }
  if (waiting > 0 && done > 0 && waiting + done == end - first) mixed = true;
  if (waiting != end - first) return false;
  for (unsigned index = first; index < end; ++index) threads[index].state = State::Ready;
  return true;
}

enum Outcome { FINE = 0, UNKNOWN = 1, TOO_LARGE = 2, DIVERGED = 3 };

Outcome run_block(unsigned number) {
  prepare();
  for (;;) {
    bool moved = false, all_done = true;
    for (unsigned turn = 0; turn < count; ++turn) {
      const unsigned index = number % 2 == 0 ? turn : count - 1 - turn;
      if (threads[index].state == State::Ready) {
        resume(index);
        moved = true;
      }
    }
    bool mixed = false;
    for (unsigned first = 0; first < count; first += WARP) {
      const unsigned end = first + WARP < count ? first + WARP : count;
      moved |= release(first, end, State::AtWarp, mixed);
    }
    moved |= release(0, count, State::AtBlock, mixed);
    for (unsigned index = 0; index < count; ++index) all_done &= threads[index].state == State::Done;
    if (all_done) return FINE;
    if (mixed || !moved) return DIVERGED;
  }
}

} // namespace

void block_barrier() { wait_as(State::AtBlock); }
void warp_barrier() { wait_as(State::AtWarp); }
uint64_t *warp_words() { return exchanged + current / WARP * WARP * WORDS_OF_LANE; }
unsigned lane() { return current % WARP; }
void *dynamic_shared() { return shared_memory; }

Registration::Registration(const char *name, Kernel kernel) : name(name), kernel(kernel), next(kernels) { kernels = this; }

} // namespace emulator

// 0, or why not: 1 there is no such kernel, 2 the block is too large for a device, 3 threads have missed a barrier.
extern "C" int eqco_emulated_launch(const char *name, const unsigned *grid, const unsigned *block, size_t shared_bytes,
                                    void **arguments) {
  using namespace emulator;
  Registration *kernel = kernels;
  while (kernel && std::strcmp(kernel->name, name) != 0) kernel = kernel->next;
  if (!kernel) return UNKNOWN;
  block_size = dim3{block[0], block[1], block[2]};
  grid_size = dim3{grid[0], grid[1], grid[2]};
  count = block[0] * block[1] * block[2];
  // What every device since 2020 has: 1,024 threads, 99 KiB of shared memory, 65,535 blocks along y and z.
  if (count == 0 || count > MOST_THREADS || shared_bytes > 99 * 1024 || grid[1] > 65535 || grid[2] > 65535) return TOO_LARGE;
  if (shared_capacity < shared_bytes) {
    std::free(shared_memory);
    shared_memory = static_cast<char *>(std::aligned_alloc(128, (shared_bytes + 127) / 128 * 128));
    shared_capacity = shared_bytes;
  }
  kernel_to_run = kernel->kernel;
  arguments_to_pass = arguments;
  unsigned number = 0;
  for (unsigned z = 0; z < grid[2]; ++z)
    for (unsigned y = 0; y < grid[1]; ++y)
      for (unsigned x = 0; x < grid[0]; ++x) {
        block_index = dim3{x, y, z};
        if (shared_bytes > 0) std::memset(shared_memory, 0xff, shared_bytes);
        const Outcome outcome = run_block(number++);
        if (outcome != FINE) return outcome;
      }
  return FINE;
}
