// SPDX-License-Identifier: Apache-2.0
//
// State: what prctl(2) and others set for a thread alone: it may not read the time stamp counter,
// runs without speculation where that can be set, has a memory policy and is an I/O flusher.
#include <sys/prctl.h>

#include "target.hpp"

using namespace target;

static constexpr int kBindNodes = 2, kSetIoFlusher = 57, kGetIoFlusher = 58;

struct Settings {
  int tsc = 0, policy = 0;
  unsigned long nodes[16] = {};
  long store_bypass = 0, indirect_branch = 0, l1d = 0, flusher = 0, cpuid = 0;

  bool operator==(const Settings&) const = default;
};

static Settings settings() {
  Settings now;
  must(::prctl(PR_GET_TSC, &now.tsc), "PR_GET_TSC");
  must(::syscall(SYS_get_mempolicy, &now.policy, now.nodes, 1024, 0, 0), "get_mempolicy");
  now.store_bypass = ::prctl(PR_GET_SPECULATION_CTRL, 0, 0, 0, 0);
  now.indirect_branch = ::prctl(PR_GET_SPECULATION_CTRL, 1, 0, 0, 0);
  now.l1d = ::prctl(PR_GET_SPECULATION_CTRL, 2, 0, 0, 0);
  now.flusher = ::prctl(kGetIoFlusher, 0, 0, 0, 0);
  now.cpuid = raw(SYS_arch_prctl, 0x1011, 0);
  return now;
}

static void set_up(std::size_t index) {
  if (index != 1) return;
  must(::prctl(PR_SET_TSC, PR_TSC_SIGSEGV), "PR_SET_TSC");
  const unsigned long first_node[2] = {1, 0};
  must(::syscall(SYS_set_mempolicy, kBindNodes, first_node, 128), "set_mempolicy");
  // Where the machine and our rights allow it.
  ::prctl(PR_SET_SPECULATION_CTRL, 0, PR_SPEC_DISABLE, 0, 0);
  ::prctl(PR_SET_SPECULATION_CTRL, 1, PR_SPEC_FORCE_DISABLE, 0, 0);
  ::prctl(PR_SET_SPECULATION_CTRL, 2, PR_SPEC_ENABLE, 0, 0);
  ::prctl(kSetIoFlusher, 1, 0, 0, 0);
  raw(SYS_arch_prctl, 0x1012, 0);
}

int main() {
  Crew crew{2};
  Settings before[2];
  crew.each([&](std::size_t index) {
    set_up(index);
    before[index] = settings();
  });
  return serve([&] {
    crew.each([&](std::size_t index) { require(settings() == before[index], "another setting"); });
  });
}
