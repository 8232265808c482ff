// SPDX-License-Identifier: Apache-2.0
//
// State: a signalfd with signals to read, watched by epoll, and a pidfd of the process itself.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include <csignal>

#include "target.hpp"

using namespace target;

static int take(int file) {
  signalfd_siginfo info{};
  const long size = raw(SYS_read, file, &info, sizeof info);
  return size == sizeof info ? static_cast<int>(info.ssi_signo) : static_cast<int>(size);
}

int main() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGRTMIN + 3);
  must(::sigprocmask(SIG_BLOCK, &set, nullptr), "sigprocmask");
  const int signals = static_cast<int>(must(::signalfd(-1, &set, SFD_NONBLOCK), "signalfd"));
  const int epoll = static_cast<int>(must(::epoll_create1(0), "epoll_create1"));
  epoll_event interest{.events = EPOLLIN, .data = {}};
  must(::epoll_ctl(epoll, EPOLL_CTL_ADD, signals, &interest), "epoll_ctl");
  const int self = static_cast<int>(must(::syscall(SYS_pidfd_open, ::getpid(), 0), "pidfd_open"));
  ::raise(SIGUSR1);

  return serve([&] {
    epoll_event event{};
    require(::epoll_wait(epoll, &event, 1, 0) == 1, "nothing to read");
    require(take(signals) == SIGUSR1, "SIGUSR1 has been lost");
    require(take(signals) == -EAGAIN, "a signal has come, or it would block");
    require(::epoll_wait(epoll, &event, 1, 0) == 0, "something to read");
    must(::syscall(SYS_pidfd_send_signal, self, SIGRTMIN + 3, nullptr, 0), "pidfd_send_signal");
    require(::epoll_wait(epoll, &event, 1, 0) == 1, "the pidfd leads elsewhere");
    require(take(signals) == SIGRTMIN + 3, "another signal");
    ::pollfd ended{self, POLLIN, 0};
    require(::poll(&ended, 1, 0) == 0, "the process has ended, it seems");
    ::raise(SIGUSR1);
  });
}
