// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>

#include <system_error>
#include <thread>
#include <utility>

#include "icecore/error.hpp"

namespace icecore {

/// Blocks every signal on the current thread.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

/// Runs `work` on a thread of its own, which no signal of the program that embeds us ever
/// interrupts.
template <class Work>
std::jthread start_worker(Work work) {
  const SignalsBlocked blocked;  // a new thread inherits the mask
  try {
    return std::jthread{std::move(work)};
  } catch (const std::system_error& e) {
    throw Error{Errc::io, fmt::format("start a thread: {}", e.code().message()), e.code().value()};
  }
}

}  // namespace icecore
