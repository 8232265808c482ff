// SPDX-License-Identifier: Apache-2.0
//
// State: pidfds of two processes that have ended, one of them by two descriptions.
#include <poll.h>
#include <sys/wait.h>

#include <csignal>

#include "target.hpp"

using namespace target;

static int open_process(pid_t pid) {
  return static_cast<int>(must(::syscall(SYS_pidfd_open, pid, 0), "pidfd_open"));
}

static std::uint64_t inode_of(int descriptor) {
  struct ::stat status {};
  must(::fstat(descriptor, &status), "fstat");
  return status.st_ino;
}

int main() {
  int pidfds[3];
  for (int i = 0; i < 3; i += 2) {
    const pid_t child = static_cast<pid_t>(must(::fork(), "fork"));
    if (child == 0) std::_Exit(0);
    pidfds[i] = open_process(child);
    if (i == 0) pidfds[1] = open_process(child);
    must(::waitpid(child, nullptr, 0), "waitpid");
  }
  // Where pidfds have inodes of their own (Linux 6.9).
  const bool apart = inode_of(pidfds[0]) != inode_of(pidfds[2]);

  return serve([=] {
    for (const int pidfd : pidfds) {
      require(raw(SYS_pidfd_send_signal, pidfd, 0, nullptr, 0) == -ESRCH, "it lives");
      pollfd ask{pidfd, POLLIN, 0};
      require(::poll(&ask, 1, 0) == 1 && (ask.revents & POLLIN) != 0, "it has not ended");
    }
    require(inode_of(pidfds[0]) == inode_of(pidfds[1]), "one became two");
    require((inode_of(pidfds[0]) != inode_of(pidfds[2])) == apart, "two became one");
    siginfo_t info{};
    require(::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | __WALL) == -1 && errno == ECHILD,
            "it has a child");
  });
}
