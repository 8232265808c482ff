// SPDX-License-Identifier: Apache-2.0
//
// State: every thread is in the middle of a restartable sequence, nearly all of the time.  Whatever
// stops it there, it has to go on at the abort handler, never in the middle.
#include <pthread.h>
#include <sys/rseq.h>

#include <array>
#include <atomic>

#include "target.hpp"

using namespace target;

enum class End { committed, aborted, forgotten };

/// Stays in a sequence until `leave` is set, or it is aborted.  `forgotten`: the thread is still in
/// the sequence, and the kernel knows of none any more.
static End stay_in_sequence(const std::atomic<int>& leave) {
  auto* area = reinterpret_cast<struct rseq*>(static_cast<char*>(__builtin_thread_pointer()) +
                                              __rseq_offset);
  asm volatile goto(
      ".pushsection __rseq_cs, \"aw\"\n\t"
      ".balign 32\n"
      "3:\n\t"
      ".long 0, 0\n\t"
      ".quad 1f, 2f - 1f, 4f\n\t"
      ".popsection\n\t"
      "leaq 3b(%%rip), %%rax\n"
      "1:\n\t"
      "movq %%rax, (%[field])\n"
      "5:\n\t"
      "cmpq %%rax, (%[field])\n\t"
      "jne %l[forgotten]\n\t"
      "cmpl $0, (%[leave])\n\t"
      "je 5b\n"
      "2:\n\t"
      ".pushsection __rseq_abort, \"ax\"\n\t"
      ".byte 0x0f, 0xb9, 0x3d\n\t"
      ".long %c[signature]\n"
      "4:\n\t"
      "jmp %l[aborted]\n\t"
      ".popsection"
      :
      : [field] "r"(&area->rseq_cs), [leave] "r"(&leave), [signature] "i"(RSEQ_SIG)
      : "rax", "cc", "memory"
      : aborted, forgotten);
  return End::committed;
aborted:
  return End::aborted;
forgotten:
  return End::forgotten;
}

struct Visitor {
  std::atomic<int> leave = 0;
  std::atomic<std::uint64_t> left = 0;
  std::atomic<bool> forgotten = false;

  [[noreturn]] void run() {
    for (;;) {
      const End end = stay_in_sequence(leave);
      if (end == End::forgotten) forgotten = true;
      if (end != End::committed) continue;
      leave = 0;
      ++left;
    }
  }

  void expect_to_leave() {
    const std::uint64_t before = left;
    leave = 1;
    await([&] { return left != before; }, "a thread never left its sequence");
    require(!forgotten, "a thread went on in the middle of a sequence that was interrupted");
  }
};

static std::array<Visitor, 2> visitors;

static int answer() {
  return serve([] {
    for (Visitor& visitor : visitors) visitor.expect_to_leave();
  });
}

int main() {
  if (__rseq_size == 0) return serve([] {});  // switched off by a tunable
  std::thread{[] { visitors[1].run(); }}.detach();
  std::thread{[] { ::_exit(answer()); }}.detach();
  visitors[0].run();
}
