// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>

#include "tracee/tracee.hpp"

namespace icecore {

/// Lets one thread of a process that stands still run as itself, for as long as this lives: a
/// thread that does somebody else's bidding, such as that of the CUDA driver.
///
/// It is not traced meanwhile: a traced thread stops once more at every SIGCONT, and where those
/// come faster than it can be told to go on it gets nowhere.  No signal but SIGTRAP, SIGSTOP and
/// its own faults reaches it.
class RunningThread {
 public:
  explicit RunningThread(Tracee& thread);
  RunningThread(const RunningThread&) = delete;
  RunningThread& operator=(const RunningThread&) = delete;
  ~RunningThread();

  /// To be called now and then: a SIGSTOP for the process, which nothing can block, is put off.
  /// Throws Errc::target_gone when the thread has ended.  Does not wait.
  void service();

  /// It stands still again, wherever it is, with its own signal mask.  Throws Errc::unsupported
  /// when it does not stop.
  void stop();

 private:
  static constexpr std::chrono::seconds kPatience{5};

  [[noreturn]] void throw_ended();
  /// Where it stays, if it has to.
  bool take(const sys::Stop& report);

  Tracee& thread_;
  sys::SignalMask mask_;
  bool running_ = true;
  bool stop_owed_ = false;  ///< a SIGSTOP that came meanwhile
};

}  // namespace icecore
