// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>

#include "tracee/tracee.hpp"

namespace icecore {

/// Lets one thread of a process that stands still run as itself, for as long as this lives: a
/// thread that does somebody else's bidding, such as that of the CUDA driver.
///
/// No signal but SIGTRAP and its own faults reaches it meanwhile.  It can stop all the same
/// (SIGCONT is enough), so call service() again and again while waiting for what it does.
class RunningThread {
 public:
  explicit RunningThread(Tracee& thread);
  RunningThread(const RunningThread&) = delete;
  RunningThread& operator=(const RunningThread&) = delete;
  ~RunningThread();

  /// Lets it run on if it has stopped.  Does not wait.
  void service();

  /// It stands still again, wherever it is, with its own signal mask.  Throws Errc::unsupported
  /// when it does not stop.
  void stop();

 private:
  static constexpr std::chrono::seconds kPatience{5};

  /// Where it stays, if it has to.
  bool take(const sys::Stop& report);

  Tracee& thread_;
  sys::SignalMask mask_;
  bool running_ = true;
  bool stop_owed_ = false;  ///< a SIGSTOP that came meanwhile, which nothing can block
};

}  // namespace icecore
