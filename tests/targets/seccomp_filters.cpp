// SPDX-License-Identifier: Apache-2.0
//
// State: seccomp filters, of which one kills the process for calls that it does not make itself,
// and one more in a thread.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include <cstddef>

#include "target.hpp"

using namespace target;

/// What `number` gives from now on.
static void install(const std::vector<int>& numbers, std::uint32_t result, unsigned flags) {
  std::vector<sock_filter> program = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  for (const int number : numbers) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(number), 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, result));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog all = {static_cast<unsigned short>(program.size()), program.data()};
  require(raw(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &all) == 0, "seccomp");
}

static std::string field(const char* name) {
  const std::string status = read_file("/proc/thread-self/status");
  const std::size_t at = status.find(std::string{"\n"} + name + ":");
  return status.substr(at + 1, status.find('\n', at + 1) - at - 1);
}

/// Of `all`, or else only of the first thread.
static void filter_everything(bool for_all, bool with_privileges) {
  if (!with_privileges) must(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
  const unsigned sync = for_all ? SECCOMP_FILTER_FLAG_TSYNC : 0;
  install({SYS_sysinfo}, SECCOMP_RET_ERRNO | 77, sync | SECCOMP_FILTER_FLAG_LOG);
  // All that looking into it would take.
  install({SYS_prctl, SYS_arch_prctl, SYS_sigaltstack, SYS_getitimer, SYS_rt_sigaction,
           SYS_set_robust_list, SYS_keyctl, SYS_get_mempolicy},
          SECCOMP_RET_KILL_PROCESS, sync);
}

int main(int, char** arguments) {
  const std::string how = arguments[1];  // "common", "different" or "privileged"
  const bool common = how != "different";
  Crew crew{2};
  crew.each([](std::size_t) {});  // their start is behind them, with calls that are then forbidden
  try {
    if (!common)
      crew.each([](std::size_t index) {
        if (index != 1) return;
        must(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
        install({SYS_uname}, SECCOMP_RET_ERRNO | 55, 0);
      });
    filter_everything(common, how == "privileged");
  } catch (const Wrong& wrong) {
    return say(std::string{"skip: "} + wrong.what()), 0;
  }
  char room[1024];
  int more = 0;
  const auto expect = [&](bool all, bool own) {
    require(raw(SYS_sysinfo, room) == (all ? -77 : 0), "sysinfo");
    require(raw(SYS_uname, room) == (own ? -55 : 0), "uname");
    const std::string count = std::to_string(2 * all + own + more);
    require(field("Seccomp_filters") == "Seccomp_filters:\t" + count, field("Seccomp_filters"));
    const bool unprivileged = own || (all && how != "privileged");
    require(field("NoNewPrivs").back() == (unprivileged ? '1' : '0'), field("NoNewPrivs"));
  };
  return serve([&] {
    expect(true, false);
    crew.each([&](std::size_t index) { expect(common, !common && index == 1); });
    // Another for all: only possible while theirs are the same ones, not merely alike.
    if (common) {
      install({}, 0, SECCOMP_FILTER_FLAG_TSYNC);
      ++more;
    }
  });
}
