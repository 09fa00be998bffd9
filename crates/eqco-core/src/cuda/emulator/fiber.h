// Fibres: a stack each, and one that runs at a time. A switch is a few instructions on x86-64; elsewhere it is `swapcontext`,
// which asks the system about signals and takes twenty times as long.
#pragma once

#include <cstddef>

#if defined(__x86_64__)

struct Fiber {
  void *stack_pointer;
};

// Keeps what the caller may rely on, swaps stacks, and returns to where the other fibre called it.
extern "C" void eqco_switch_stacks(void **save, void *load);
asm(R"(
.text
.globl eqco_switch_stacks
.type eqco_switch_stacks, @function
eqco_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size eqco_switch_stacks, .-eqco_switch_stacks
)");

inline void switch_fiber(Fiber &from, Fiber &to) { eqco_switch_stacks(&from.stack_pointer, to.stack_pointer); }

inline void start_fiber(Fiber &fiber, char *stack, size_t size, void (*entry)()) {
  // Behind six registers lies the address that the first switch returns to; the stack is then aligned as after a call.
  void **top = reinterpret_cast<void **>(stack + size - 16);
  *top = reinterpret_cast<void *>(entry);
  for (int i = 1; i <= 6; ++i) top[-i] = nullptr;
  fiber.stack_pointer = top - 6;
}

#else

#include <ucontext.h>

struct Fiber {
  ucontext_t context;
};

inline void switch_fiber(Fiber &from, Fiber &to) { swapcontext(&from.context, &to.context); }

inline void start_fiber(Fiber &fiber, char *stack, size_t size, void (*entry)()) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack;
  fiber.context.uc_stack.ss_size = size;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
}

#endif
