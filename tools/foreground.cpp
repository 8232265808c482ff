// SPDX-License-Identifier: Apache-2.0
#include "foreground.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

#include "signals.hpp"

namespace icecore::tool {
namespace {

/// Ours and its process group is the same: a signal from the terminal has reached it already.
bool shares_our_group(const RestoredProcess& process) {
  return ::getpgid(process.pid()) == ::getpgrp();
}

/// Stops us when the process has stopped, so that the shell sees it.  Whatever continues us is
/// passed on like any other signal.
void stop_if_stopped(const RestoredProcess& process) {
  ::siginfo_t info{};
  const auto pid = static_cast<id_t>(process.pid());
  if (::waitid(P_PID, pid, &info, WSTOPPED | WNOHANG) == 0 && info.si_pid != 0) ::raise(SIGSTOP);
}

void handle(const SignalReader::Received& signal, const RestoredProcess& process) {
  if (signal.number == SIGCHLD)
    stop_if_stopped(process);
  else if (!signal.from_terminal || !shares_our_group(process))
    process.signal(signal.number);
}

bool ended(const RestoredProcess& process, const SignalReader& reader, int& pager) {
  std::array<::pollfd, 3> waits{
      {{process.pidfd(), POLLIN, 0}, {reader.fd(), POLLIN, 0}, {pager, POLLIN, 0}}};
  ::poll(waits.data(), waits.size(), -1);
  if (waits[2].revents != 0) {
    while (const auto message = process.pager_message())
      fmt::print(stderr, "icecore: {}\n", *message);
    if ((waits[2].revents & POLLHUP) != 0) pager = -1;
    if (process.pager_lost()) {
      fmt::print(stderr,
                 "icecore: the pager was killed; so is the process, whose memory would be "
                 "wrong\n");
      process.signal(SIGKILL);
    }
  }
  return waits[0].revents != 0;
}

}  // namespace

sigset_t foreground_signals() {
  return not_ignored({SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH,
                      SIGCONT, SIGTSTP, SIGCHLD});
}

int stay_in_foreground(RestoredProcess& process) {
  const SignalReader reader{foreground_signals()};
  stop_if_stopped(process);  // before we listened
  int pager = process.pager_fd();
  while (!ended(process, reader, pager))
    while (const auto signal = reader.read()) handle(*signal, process);

  const int status = process.wait();
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace icecore::tool
