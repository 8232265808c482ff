// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <span>
#include <stop_token>
#include <vector>

#include "tracee/tracee.hpp"

namespace icecore {

/// A process none of whose threads runs, for as long as this object lives.
///
/// Create, use and destroy it on one thread: Linux ties ptrace attachments to the thread that
/// made them.
class FrozenProcess {
 public:
  /// How long a thread may take to stop.  One that waits in vfork(2) for its child does not stop at
  /// all, nor does one in an uninterruptible sleep.
  static constexpr std::chrono::seconds kPatience{5};

  /// Stops every thread of `pid`.  If any cannot be stopped, those already stopped run on.
  /// Throws Errc::target_gone when the process ends meanwhile.
  static FrozenProcess freeze(pid_t pid, const std::stop_token& stop);

  pid_t pid() const noexcept { return pid_; }

  /// Never empty; the leader first.
  std::span<Tracee> threads() noexcept { return threads_; }
  std::span<const Tracee> threads() const noexcept { return threads_; }
  Tracee& leader() noexcept { return threads_.front(); }

  /// True when SIGSTOP, or a signal like it, had stopped the process before we did.  It is stopped
  /// again when it is thawed.
  bool stopped() const noexcept { return stopped_; }

  /// The process runs on.
  void thaw() noexcept {
    // The leader last: a thread that waits for it in a futex is better back there before it runs.
    while (!threads_.empty()) threads_.pop_back();
  }

  /// Lets threads that run code in [start, end) go on until they have left it, if they do within
  /// milliseconds.
  void leave(std::uint64_t start, std::uint64_t end, const std::stop_token& stop);

  /// Ends the process: it never runs again.  `killed` is called as soon as that cannot be undone.
  void kill(const std::function<void()>& killed);

 private:
  explicit FrozenProcess(pid_t pid) : pid_(pid) {}
  bool stop_new_threads(const std::stop_token& stop);

  pid_t pid_;
  std::vector<Tracee> threads_;
  bool stopped_ = false;
};

}  // namespace icecore
