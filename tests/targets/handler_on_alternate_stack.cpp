// SPDX-License-Identifier: Apache-2.0
//
// State: a thread waits inside a signal handler that runs on the thread's alternate stack.
#include <atomic>
#include <csignal>

#include "target.hpp"

using namespace target;

static int go_on[2];
static std::atomic<int> in_handler = 0, returned = 0;
static std::atomic<const char*> frame = nullptr;
static char stack[64 * 1024];
static std::atomic<bool> bad = false;

static void wait_here(int) {
  const char here = 0;
  const char* volatile address = &here;
  frame = address;
  ++in_handler;
  char byte;
  if (raw(SYS_read, go_on[0], &byte, 1) != 1) bad = true;
  if (address != frame) bad = true;
}

static void run() {
  const stack_t wanted = {stack, 0, sizeof stack};
  must(::sigaltstack(&wanted, nullptr), "sigaltstack");
  for (;;) {
    must(::raise(SIGUSR1), "raise");
    stack_t now{};
    must(::sigaltstack(nullptr, &now), "sigaltstack");
    if (now.ss_sp != stack || now.ss_flags != 0) bad = true;
    ++returned;
  }
}

int main() {
  must(::pipe2(go_on, O_CLOEXEC), "pipe2");
  struct sigaction action {};
  action.sa_handler = wait_here;
  action.sa_flags = SA_ONSTACK;
  must(::sigaction(SIGUSR1, &action, nullptr), "sigaction");
  std::thread{run}.detach();
  await([] { return in_handler == 1; }, "the handler never ran");
  return serve([] {
    const int times = in_handler;
    require(times == returned + 1, "the thread is not in its handler");
    require(frame >= stack && frame < stack + sizeof stack, "the handler runs elsewhere");
    must(::write(go_on[1], "x", 1), "write");
    await([=] { return in_handler == times + 1; }, "the handler does not return");
    require(!bad, "the handler or its stack were disturbed");
  });
}
