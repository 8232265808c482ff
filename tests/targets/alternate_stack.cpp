// SPDX-License-Identifier: Apache-2.0
//
// State: alternate signal stacks, other ones on each thread, one of them disarmed in the handler.
#include <csignal>

#include "target.hpp"

using namespace target;

struct Stack {
  std::vector<char> memory = std::vector<char>(64 * 1024);
  int flags = 0;
  stack_t wanted() { return {memory.data(), flags, memory.size()}; }
};

static thread_local const char* handler_frame = nullptr;

static void note_frame(int) {
  const char here = 0;
  const char* volatile address = &here;
  handler_frame = address;
}

static void expect(Stack& stack) {
  stack_t found{};
  must(::sigaltstack(nullptr, &found), "sigaltstack");
  require(found.ss_sp == stack.memory.data(), "another stack");
  require(found.ss_size == stack.memory.size() && found.ss_flags == stack.flags, "size or flags");
  must(::raise(SIGUSR1), "raise");
  const bool on_it = handler_frame >= stack.memory.data() &&
                     handler_frame < stack.memory.data() + stack.memory.size();
  require(on_it, "the handler ran elsewhere");
}

int main() {
  struct sigaction action {};
  action.sa_handler = note_frame;
  action.sa_flags = SA_ONSTACK;
  must(::sigaction(SIGUSR1, &action, nullptr), "sigaction");

  std::vector<Stack> stacks(3);
  stacks[1].flags = 1 << 31;  // SS_AUTODISARM
  const auto install = [&](std::size_t index) {
    const stack_t wanted = stacks[index].wanted();
    must(::sigaltstack(&wanted, nullptr), "sigaltstack");
  };
  Crew crew{2};
  crew.each(install);
  install(2);
  return serve([&] {
    expect(stacks[2]);
    crew.each([&](std::size_t index) { expect(stacks[index]); });
  });
}
