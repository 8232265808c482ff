// SPDX-License-Identifier: Apache-2.0
#pragma once

// Signals are read like bytes here: blocked in every thread, taken from a signalfd(2).
//
// Kernel facts relied on here:
//  * A blocked signal is kept even if it is ignored, so one that we inherited as ignored (as SIGHUP
//    under nohup) must not end anything.
//  * A signal from the terminal goes to its whole foreground process group, with si_code SI_KERNEL.
//  * SIGCONT continues a stopped process although it is blocked, and is then also kept.

#include <signal.h>

#include <atomic>
#include <initializer_list>
#include <optional>
#include <stop_token>
#include <thread>

namespace icecore::tool {

/// Whether this process was started to ignore it.
bool is_ignored(int number);

/// Those of `numbers` that this process does not ignore.
sigset_t not_ignored(std::initializer_list<int> numbers);

/// Blocks signals in this thread and in all that it starts from now on, as long as it lives.
class BlockedSignals {
 public:
  explicit BlockedSignals(const sigset_t& signals);
  BlockedSignals(const BlockedSignals&) = delete;
  ~BlockedSignals();

 private:
  sigset_t before_{};
};

/// A descriptor that gives the signals of a set, which must be blocked.
class SignalReader {
 public:
  explicit SignalReader(const sigset_t& signals);
  SignalReader(const SignalReader&) = delete;
  ~SignalReader();

  struct Received {
    int number;
    bool from_terminal;
  };

  /// Nothing when none waits.
  std::optional<Received> read() const;

  int fd() const noexcept { return fd_; }

 private:
  int fd_;
};

/// As long as this lives, SIGINT, SIGTERM, SIGHUP and SIGQUIT ask for an end instead of ending the
/// program at once.  A second one does end it.
class StopOnSignal {
 public:
  /// `received` gets the number of the signal.
  explicit StopOnSignal(std::atomic<int>& received);
  StopOnSignal(const StopOnSignal&) = delete;
  ~StopOnSignal();

  std::stop_token token() const { return stop_.get_token(); }

 private:
  void watch();
  void stop_for(int number);

  sigset_t signals_;
  BlockedSignals blocked_;
  SignalReader reader_;
  int end_;  // an eventfd(2) that ends the thread
  std::atomic<int>& received_;
  std::stop_source stop_;
  std::thread thread_;
};

/// Waits for a line on standard input, and takes no byte behind it; or for a signal, which must be
/// blocked.  False when standard input ends, or a stop is requested.
bool wait_for_line_or(int signal, const std::stop_token& stop);

}  // namespace icecore::tool
