// SPDX-License-Identifier: Apache-2.0
//
// What a process cannot see of its own seccomp filters.
#include <catch2/catch.hpp>
#include <icecore/snapshot.hpp>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "support/restored.hpp"
#include "support/skip.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::seccomp_test {

/// Of each filter, the oldest first: SECCOMP_FILTER_FLAG_LOG and so on.  Needs CAP_SYS_ADMIN.
std::vector<std::uint64_t> filter_flags(pid_t pid) {
  constexpr auto kGetMetadata = static_cast<__ptrace_request>(0x420d);
  must(::ptrace(PTRACE_SEIZE, pid, nullptr, nullptr), "PTRACE_SEIZE");
  must(::ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr), "PTRACE_INTERRUPT");
  must(::waitpid(pid, nullptr, __WALL), "waitpid");
  std::vector<std::uint64_t> flags;
  struct {
    std::uint64_t index, flags;
  } metadata{};
  for (; ::ptrace(kGetMetadata, pid, sizeof metadata, &metadata) > 0; ++metadata.index)
    flags.push_back(metadata.flags);
  must(::ptrace(PTRACE_DETACH, pid, nullptr, nullptr), "PTRACE_DETACH");
  return flags;
}

TEST_CASE("a seccomp filter of which the kernel logs what it does is logged again") {
  constexpr std::uint64_t kLog = 2;
  TemporaryFolder folder;
  try {
    Target target{"seccomp_filters", {"common"}};
    const auto before = filter_flags(target.pid());
    if (before.empty()) return skip("the flags of filters cannot be read here");
    CHECK(before == std::vector<std::uint64_t>{kLog, 0});
    icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
    target.process().await_end();
    Restored restored{folder / "image"};
    CHECK(filter_flags(restored.pid()) == before);
    CHECK(restored.running());
  } catch (const NotHere& reason) {
    skip(reason.what());
  }
}

}  // namespace test::seccomp_test
