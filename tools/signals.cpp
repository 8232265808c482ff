// SPDX-License-Identifier: Apache-2.0
#include "signals.hpp"

#include <icecore/error.hpp>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>

#include "descriptor.hpp"

namespace icecore::tool {

bool is_ignored(int number) {
  struct sigaction action {};
  ::sigaction(number, nullptr, &action);
  return action.sa_handler == SIG_IGN;
}

sigset_t not_ignored(std::initializer_list<int> numbers) {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int number : numbers)
    if (!is_ignored(number)) ::sigaddset(&signals, number);
  return signals;
}

BlockedSignals::BlockedSignals(const sigset_t& signals) {
  ::pthread_sigmask(SIG_BLOCK, &signals, &before_);
}

BlockedSignals::~BlockedSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

SignalReader::SignalReader(const sigset_t& signals)
    : fd_(checked(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK), "make a signalfd")) {}

SignalReader::~SignalReader() { ::close(fd_); }

std::optional<SignalReader::Received> SignalReader::read() const {
  ::signalfd_siginfo info{};
  if (::read(fd_, &info, sizeof info) != sizeof info) return std::nullopt;
  return Received{.number = static_cast<int>(info.ssi_signo),
                  .from_terminal = info.ssi_code == SI_KERNEL};
}

StopOnSignal::StopOnSignal(std::atomic<int>& received)
    : signals_(not_ignored({SIGINT, SIGTERM, SIGHUP, SIGQUIT})),
      blocked_(signals_),
      reader_(signals_),
      end_(checked(::eventfd(0, EFD_CLOEXEC), "make an eventfd")),
      received_(received),
      thread_([this] { watch(); }) {}

StopOnSignal::~StopOnSignal() {
  ::eventfd_write(end_, 1);
  thread_.join();
  ::close(end_);
}

void StopOnSignal::watch() {
  // It reads them: none is to come here.  Nor SIGCHLD, which comes at every stop of a tracee and
  // which the kernel, when all block it, only notes.
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  for (;;) {
    std::array<::pollfd, 2> waits{{{reader_.fd(), POLLIN, 0}, {end_, POLLIN, 0}}};
    ::poll(waits.data(), waits.size(), -1);
    if (waits[1].revents != 0) return;
    if (const auto signal = reader_.read()) stop_for(signal->number);
  }
}

void StopOnSignal::stop_for(int number) {
  if (received_.exchange(number) == 0) {
    stop_.request_stop();
    return;
  }
  // Whoever asks twice does not want to wait.  The kernel then lets the target run on.
  sigset_t one;
  ::sigemptyset(&one);
  ::sigaddset(&one, number);
  ::signal(number, SIG_DFL);
  ::pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
  ::raise(number);
}

bool wait_for_line_or(int signal, const std::stop_token& stop) {
  sigset_t wanted;
  sigemptyset(&wanted);
  sigaddset(&wanted, signal);
  const SignalReader reader{wanted};
  constexpr int kLookMs = 50;  // whether a stop is requested
  while (!stop.stop_requested()) {
    std::array<::pollfd, 2> waits{{{0, POLLIN, 0}, {reader.fd(), POLLIN, 0}}};
    ::poll(waits.data(), waits.size(), kLookMs);
    if (waits[1].revents != 0 && reader.read()) return true;
    if (waits[0].revents == 0) continue;
    char byte = 0;
    const ssize_t count = ::read(0, &byte, 1);
    if (count == 0) return false;
    if (count == 1 && byte == '\n') return true;
  }
  return false;
}

}  // namespace icecore::tool
