// SPDX-License-Identifier: Apache-2.0
//
// State: each thread blocks other signals, real-time ones too.
#include <csignal>

#include "target.hpp"

using namespace target;

constexpr std::uint64_t kUnblockable = 1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1);

static std::uint64_t own_mask() {
  std::uint64_t mask = 0;
  must(::syscall(SYS_rt_sigprocmask, SIG_SETMASK, nullptr, &mask, sizeof mask), "get the mask");
  return mask;
}

static void set_mask(std::uint64_t mask) {
  must(::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, nullptr, sizeof mask), "set the mask");
}

int main() {
  const std::uint64_t masks[] = {0, 1, 1ull << (SIGUSR1 - 1) | 1ull << (SIGTERM - 1),
                                 1ull << 63 | 1ull << 40, ~0ull & ~kUnblockable};
  Crew crew{std::size(masks)};
  crew.each([&](std::size_t index) { set_mask(masks[index]); });
  const std::uint64_t own = 1ull << (SIGHUP - 1) | 1ull << 33;
  set_mask(own);
  return serve([&] {
    require(own_mask() == own, "the first thread blocks other signals");
    crew.each([&](std::size_t i) { require(own_mask() == masks[i], "blocks other signals"); });
  });
}
