// SPDX-License-Identifier: Apache-2.0
#include "foreground.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <limits>
#include <string>

namespace icecore::tool {
namespace {

/// What a process says of itself in /proc.
bool is_caught_by(pid_t pid, int number) {
  std::ifstream status{fmt::format("/proc/{}/status", pid)};
  for (std::string field; status >> field; status.ignore(std::numeric_limits<int>::max(), '\n')) {
    if (field != "SigCgt:") continue;
    std::string mask;
    status >> mask;
    return (std::stoull(mask, nullptr, 16) >> (number - 1) & 1) != 0;
  }
  return false;
}

bool ended(const RestoredProcess& process, const StandIn& stand_in, int& pager, Ending& ending) {
  std::array<::pollfd, 3> waits{
      {{process.pidfd(), POLLIN, 0}, {stand_in.fd(), POLLIN, 0}, {pager, POLLIN, 0}}};
  ::poll(waits.data(), waits.size(), -1);
  if (waits[2].revents != 0) {
    while (const auto message = process.pager_message()) {
      fmt::print(stderr, "icecore: {}\n", *message);
      ending.fault = *message;
    }
    if ((waits[2].revents & POLLHUP) != 0) pager = -1;
    if (process.pager_lost()) {
      ending.fault = "the pager was killed; so is the process, whose memory would be wrong";
      ending.our_fault = true;
      fmt::print(stderr, "icecore: {}\n", ending.fault);
      process.signal(SIGKILL);
    }
  }
  return waits[0].revents != 0;
}

}  // namespace

sigset_t foreground_signals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH,
                           SIGCONT, SIGTSTP, SIGCHLD})
    ::sigaddset(&signals, number);
  return signals;
}

StandIn::StandIn(pid_t pid) : pid_(pid), reader_(foreground_signals()) {
  stop_if_stopped();  // before we listened
}

void StandIn::pass_signals(bool snapshotting) const {
  while (const auto signal = reader_.read()) handle(*signal, snapshotting);
}

void StandIn::handle(const SignalReader::Received& signal, bool snapshotting) const {
  if (signal.number == SIGCHLD) {
    if (!snapshotting) stop_if_stopped();
  } else if (is_ignored(signal.number) && !is_caught_by(pid_, signal.number)) {
    return;  // as under nohup; but a shell script's `program &` may mind SIGINT all the same
  } else if (!signal.from_terminal || !shares_our_group()) {
    if (signal.number == SIGCONT) give_terminal();
    ::kill(pid_, signal.number);
  }
}

/// Its process group is ours: a signal from the terminal has reached it already.
bool StandIn::shares_our_group() const { return ::getpgid(pid_) == ::getpgrp(); }

/// Continued in the foreground, as by the fg of a shell, we let it have the terminal that is its.
void StandIn::give_terminal() const {
  const int terminal = ::open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (terminal < 0) return;
  if (::tcgetpgrp(terminal) == ::getpgrp() && ::getsid(pid_) == ::getsid(0) &&
      ::getpgid(pid_) == pid_)
    ::tcsetpgrp(terminal, pid_);
  ::close(terminal);
}

/// Stops us when the process has stopped, so that the shell sees it.  Whatever continues us is
/// passed on like any other signal.
void StandIn::stop_if_stopped() const {
  ::siginfo_t info{};
  if (::waitid(P_PID, static_cast<id_t>(pid_), &info, WSTOPPED | WNOHANG) == 0 && info.si_pid != 0)
    ::raise(SIGSTOP);
}

TerminalKeeper::TerminalKeeper() : terminal_(::open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC)) {
  if (terminal_ < 0) return;
  if (::tcgetpgrp(terminal_) == ::getpgrp() && ::tcgetattr(terminal_, &settings_) == 0) return;
  ::close(terminal_);
  terminal_ = -1;
}

TerminalKeeper::~TerminalKeeper() {
  if (terminal_ < 0) return;
  // In the foreground is the group of a process that has ended, or still ours: not another job.
  const pid_t foreground = ::tcgetpgrp(terminal_);
  if (foreground == ::getpgrp() || ::kill(-foreground, 0) != 0) {
    sigset_t background, before;
    ::sigemptyset(&background);
    ::sigaddset(&background, SIGTTOU);
    ::pthread_sigmask(SIG_BLOCK, &background, &before);
    ::tcsetpgrp(terminal_, ::getpgrp());
    ::tcsetattr(terminal_, TCSADRAIN, &settings_);
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  ::close(terminal_);
}

int shell_status(int wait_status) {
  return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

Ending stay_in_foreground(RestoredProcess& process) {
  Ending ending;
  {
    const StandIn stand_in{process.pid()};
    int pager = process.pager_fd();
    while (!ended(process, stand_in, pager, ending)) stand_in.pass_signals();
  }
  ending.status = shell_status(process.wait());
  const bool lost = process.pager_statistics().lost_bytes != 0;
  ending.our_fault = ending.our_fault || (lost && ending.status > 128);
  return ending;
}

}  // namespace icecore::tool
