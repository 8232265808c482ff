// SPDX-License-Identifier: Apache-2.0
//
// State: threads in user code with known values in all general registers and in the flags.
#include <atomic>

#include "target.hpp"

using namespace target;

// Loads 14 registers from `values` (all but rsp and rcx) and the flags from values[14], waits until
// *released in a loop that changes none of them, and stores what it finds back into `values`.
extern "C" void hold(std::uint64_t* values, const volatile int* released);
asm(R"(
  .text
  .globl hold
hold:
  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15
  push %rdi; push %rsi            # 0(%rsp): released, 8(%rsp): values
  push 112(%rdi)                  # the flags wanted
  mov 0(%rdi), %rax;   mov 8(%rdi), %rbx;   mov 16(%rdi), %rdx;  mov 24(%rdi), %rsi
  mov 32(%rdi), %rbp;  mov 40(%rdi), %r8;   mov 48(%rdi), %r9;   mov 56(%rdi), %r10
  mov 64(%rdi), %r11;  mov 72(%rdi), %r12;  mov 80(%rdi), %r13;  mov 88(%rdi), %r14
  mov 96(%rdi), %r15;  mov 104(%rdi), %rdi
  popf
1:                                # nothing from here to 2: changes the flags
  mov (%rsp), %rcx
  movl (%rcx), %ecx
  jrcxz 1b
2:
  pushf                           # 0: flags, 8: released, 16: values
  mov 16(%rsp), %rcx
  mov %rax, 0(%rcx);   mov %rbx, 8(%rcx);   mov %rdx, 16(%rcx);  mov %rsi, 24(%rcx)
  mov %rbp, 32(%rcx);  mov %r8, 40(%rcx);   mov %r9, 48(%rcx);   mov %r10, 56(%rcx)
  mov %r11, 64(%rcx);  mov %r12, 72(%rcx);  mov %r13, 80(%rcx);  mov %r14, 88(%rcx)
  mov %r15, 96(%rcx);  mov %rdi, 104(%rcx)
  pop %rax
  mov %rax, 112(%rcx)
  add $16, %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx
  ret
)");

constexpr std::uint64_t kFlags[] = {0x202, 0xad7, 0x246, 0xa93, 0x203, 0x282};  // CF PF AF ZF SF OF
constexpr std::size_t kThreads = std::size(kFlags);
static volatile int released = 0;
static std::atomic<std::size_t> inside = 0, wrong = 0, done = 0;

static void hold_once(std::uint64_t seed, std::uint64_t flags) {
  std::uint64_t values[15];
  for (std::size_t index = 0; index < 14; ++index) values[index] = pattern(seed, index);
  values[14] = flags;
  ++inside;
  hold(values, &released);
  for (std::size_t index = 0; index < 14; ++index) wrong += values[index] != pattern(seed, index);
  wrong += (values[14] & 0xad5) != (flags & 0xad5);
  ++done;
}

static void start() {
  released = 0;
  inside = done = 0;
  for (const std::uint64_t flags : kFlags) std::thread{hold_once, random_number(), flags}.detach();
  await([] { return inside == kThreads; }, "the threads never started");
}

int main() {
  start();
  return serve([] {
    require(done == 0, "a thread left its loop");
    released = 1;
    await([] { return done == kThreads; }, "a thread is stuck");
    require(wrong == 0, std::to_string(wrong) + " registers have other values");
    start();
  });
}
