// SPDX-License-Identifier: Apache-2.0
//
// State: descriptors that send signals: to the process, to a thread of it, to its group, another
// signal than SIGIO; and an owner without O_ASYNC.
#include <atomic>
#include <csignal>

#include "target.hpp"

using namespace target;

static std::atomic<int> signals = 0;
static std::atomic<long> in_thread = 0;
static std::atomic<int> descriptor = -1;

static void handle(int, siginfo_t* info, void*) {
  in_thread = ::syscall(SYS_gettid);
  descriptor = info->si_fd;
  ++signals;
}

static void expect_signal(int write_end, int read_end) {
  const int before = signals;
  must(::write(write_end, "x", 1), "write");
  await([&] { return signals > before; }, "no signal came");
  require(descriptor == read_end, "of descriptor " + std::to_string(descriptor));
  char byte;
  must(::read(read_end, &byte, 1), "read");
}

int main() {
  must(::setpgid(0, 0), "setpgid");
  struct sigaction action {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  must(::sigaction(SIGRTMIN, &action, nullptr), "sigaction");
  must(::sigaction(SIGUSR2, &action, nullptr), "sigaction");

  static std::atomic<long> tid = 0;
  std::thread{[] {
    tid = ::syscall(SYS_gettid);
    for (;;) ::pause();
  }}.detach();
  await([] { return tid != 0; }, "the thread never started");

  int first[2], second[2], third[2], of_group[2];
  must(::pipe(first), "pipe");
  must(::pipe(second), "pipe");
  must(::pipe(third), "pipe");
  must(::fcntl(first[0], F_SETOWN, ::getpid()), "F_SETOWN");
  must(::fcntl(first[0], F_SETSIG, SIGRTMIN), "F_SETSIG");
  must(::fcntl(first[0], F_SETFL, O_ASYNC | O_NONBLOCK), "F_SETFL");
  const f_owner_ex thread = {F_OWNER_TID, static_cast<pid_t>(tid)};
  must(::fcntl(second[0], F_SETOWN_EX, &thread), "F_SETOWN_EX");
  must(::fcntl(second[0], F_SETSIG, SIGUSR2), "F_SETSIG");
  must(::fcntl(second[0], F_SETFL, O_ASYNC), "F_SETFL");
  must(::fcntl(third[0], F_SETOWN, ::getpid()), "F_SETOWN");
  must(::pipe(of_group), "pipe");
  const f_owner_ex group = {F_OWNER_PGRP, ::getpid()};
  must(::fcntl(of_group[0], F_SETOWN_EX, &group), "F_SETOWN_EX");

  return serve([&] {
    expect_signal(first[1], first[0]);
    expect_signal(second[1], second[0]);
    require(in_thread == tid, "another thread got the signal");
    require(::fcntl(third[0], F_GETOWN) == ::getpid(), "F_GETOWN");
    f_owner_ex owner{};
    must(::fcntl(of_group[0], F_GETOWN_EX, &owner), "F_GETOWN_EX");
    require(owner.type == F_OWNER_PGRP && owner.pid == ::getpid(), "F_GETOWN_EX");
    require(::fcntl(first[0], F_GETFL) == (O_ASYNC | O_NONBLOCK), "flags");
    require(::fcntl(first[0], F_GETSIG) == SIGRTMIN, "F_GETSIG");
    require((::fcntl(third[0], F_GETFL) & O_ASYNC) == 0, "O_ASYNC");
  });
}
