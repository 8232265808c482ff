// SPDX-License-Identifier: Apache-2.0
//
// State: other users and groups than those of whoever started the program, few capabilities, some
// of them ambient, secure bits; and a thread with less than that.
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

#include "target.hpp"

using namespace target;

static void set_capabilities(std::uint32_t effective, std::uint32_t permitted,
                             std::uint32_t inheritable) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  const __user_cap_data_struct data[2] = {{effective, permitted, inheritable}, {0, 0, 0}};
  must(::syscall(SYS_capset, &header, data), "capset");
}

static constexpr std::uint32_t kBind = 1u << CAP_NET_BIND_SERVICE, kKill = 1u << CAP_KILL;

// Raw calls throughout: libc would do the same to all threads.
static void give_up() {
  const gid_t groups[] = {7, 8, 900};
  must(::prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_NOROOT), "PR_SET_SECUREBITS");
  must(::prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT), "PR_CAPBSET_DROP");
  must(::syscall(SYS_setgroups, 3, groups), "setgroups");
  must(::syscall(SYS_setresgid, 101, 102, 103), "setresgid");
  must(::syscall(SYS_setresuid, 1001, 1002, 1003), "setresuid");
  ::syscall(SYS_setfsuid, 1001);
  set_capabilities(kKill, kBind | kKill, kBind);
  must(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0), "ambient");
}

static void give_up_more() {
  must(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
  must(::prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS), "PR_SET_SECUREBITS");
  must(::syscall(SYS_setresuid, 2002, 2002, 2002), "setresuid");
  set_capabilities(0, 0, 0);
}

static std::string credentials() {
  std::string text = std::to_string(::prctl(PR_GET_SECUREBITS)) + " ";
  const std::string status = read_file("/proc/thread-self/status");
  for (const char* field :
       {"Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"}) {
    const std::size_t at = status.find(std::string{"\n"} + field + ":");
    text += status.substr(at, status.find('\n', at + 1) - at);
  }
  return text;
}

int main() {
  Crew crew{2};
  std::string of_main, of_thread[2];
  try {
    crew.each([&](std::size_t index) {
      if (index == 1) give_up_more();
      of_thread[index] = credentials();
    });
    give_up();
    of_main = credentials();
    must(::prctl(PR_SET_DUMPABLE, 1), "PR_SET_DUMPABLE");
  } catch (const Wrong& wrong) {
    return say(std::string{"skip: "} + wrong.what()), 0;
  }
  return serve([&] {
    require(credentials() == of_main, "was " + of_main + ", is " + credentials());
    crew.each([&](std::size_t index) {
      require(credentials() == of_thread[index],
              "was " + of_thread[index] + ", is " + credentials());
    });
  });
}
