// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <optional>

#include "icecore/error.hpp"
#include "tracee/running_thread.hpp"

namespace icecore::gpu {

/// The one thread that may run of a process that stands still; or of one that runs as a whole,
/// where there is nothing to open.
class ThreadGate {
 public:
  /// The process runs.
  ThreadGate() = default;
  /// The process stands still, but for this thread when it is asked to do something.
  explicit ThreadGate(Tracee& thread) : thread_(&thread) {}

  /// Calls work(meanwhile) while the thread runs; `meanwhile` is to be called about every
  /// millisecond.
  template <class Work>
  auto with_running_thread(Work work) const {
    std::optional<RunningThread> running;
    if (thread_ != nullptr) running.emplace(*thread_);
    auto result = work([&] {
      if (running) running->service();
    });
    if (running) running->stop();
    return result;
  }

 private:
  Tracee* thread_ = nullptr;
};

/// The thread with this id, as the process itself knows it, among `threads`.
template <class Threads>
Tracee& find_thread(Threads& threads, pid_t tid) {
  for (Tracee& thread : threads)
    if (thread.inner_tid() == tid) return thread;
  throw Error{Errc::unsupported,
              fmt::format("thread {}, which works for the CUDA driver, does not exist", tid)};
}

}  // namespace icecore::gpu
