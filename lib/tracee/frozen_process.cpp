// SPDX-License-Identifier: Apache-2.0
#include "tracee/frozen_process.hpp"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <thread>
#include <unordered_set>

#include "icecore/error.hpp"
#include "sys/process.hpp"
#include "sys/procfs.hpp"

namespace icecore {
namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void throw_gone(pid_t pid) {
  throw Error{Errc::target_gone, fmt::format("process {} ended while it was being frozen", pid)};
}

std::string why_it_does_not_stop(pid_t tid) {
  const auto stat = sys::read_stat(tid);
  return fmt::format(
      "thread {} does not stop (state {}): it waits in the kernel where nothing can interrupt it, "
      "as in vfork or for a device that does not answer",
      tid, stat ? stat->state : '?');
}

/// Asks often at first, since most threads stop within microseconds, then less and less often.
sys::Stop wait_for_stop(pid_t tid, Clock::time_point deadline, const std::stop_token& stop) {
  for (unsigned attempt = 0;; ++attempt) {
    if (const auto report = sys::poll_stop(tid)) return *report;
    if (attempt < 200) {
      sys::yield();
      continue;
    }
    if (sys::is_zombie(tid)) return {.kind = sys::Stop::Kind::exited};  // see sys::wait_stop
    if (stop.stop_requested()) throw Error{Errc::cancelled, "snapshot: cancelled"};
    if (Clock::now() > deadline)
      throw Error{Errc::unsupported, "the process cannot be frozen", {why_it_does_not_stop(tid)}};
    sys::pause_for(std::chrono::microseconds{attempt < 1000 ? 50 : 1000});
  }
}

}  // namespace

FrozenProcess FrozenProcess::freeze(pid_t pid, const std::stop_token& stop) {
  FrozenProcess process{pid};
  // A running thread can clone while we list, so list again until a pass finds nobody new.
  // This ends: the threads stopped so far cannot clone.
  while (process.stop_new_threads(stop)) {
  }
  if (process.threads_.empty()) throw_gone(pid);
  const auto leader = std::ranges::find(process.threads_, pid, &Tracee::tid);
  if (leader == process.threads_.end())
    throw Error{Errc::unsupported,
                "the process cannot be snapshotted",
                {fmt::format("thread {}: the first thread of the process has ended while others "
                             "run on; such a process cannot be rebuilt",
                             pid)}};
  return process;
}

// All interrupts first, then all waits: 9 µs a thread instead of 40, since the threads stop while
// we ask the next ones.
bool FrozenProcess::stop_new_threads(const std::stop_token& stop) {
  std::unordered_set<pid_t> known;
  for (const Tracee& thread : threads_) known.insert(thread.tid());

  std::vector<pid_t> seized;
  for (const pid_t tid : sys::list_threads(pid_))
    if (!known.contains(tid) && sys::seize(tid)) seized.push_back(tid);
  for (const pid_t tid : seized) sys::interrupt(tid);

  const auto deadline = Clock::now() + kPatience;
  threads_.reserve(threads_.size() + seized.size());
  for (const pid_t tid : seized) {
    const sys::Stop report = wait_for_stop(tid, deadline, stop);
    if (report.kind == sys::Stop::Kind::exited) {
      if (tid == pid_) throw_gone(pid_);
      continue;
    }
    threads_.emplace_back(tid, report);
    if (report.kind == sys::Stop::Kind::trap && report.signal != SIGTRAP) stopped_ = true;
  }
  return !seized.empty();
}

void FrozenProcess::leave(std::uint64_t start, std::uint64_t end, const std::stop_token& stop) {
  constexpr int kAttempts = 200;
  constexpr int kAtOnce = 4;
  constexpr std::chrono::microseconds kPause{10};
  if (stopped_) return;  // none of its threads may run
  const auto deadline = Clock::now() + kPatience;
  bool ran = false;
  for (Tracee& thread : threads_) {
    const auto inside = [&] { return thread.registers().rip - start < end - start; };
    for (int i = 0; i < kAttempts && inside() && !thread.suspended_signal(); ++i) {
      ran = true;
      sys::resume(thread.tid());
      // On a machine that has nothing else to do an interruption comes before the next instruction.
      if (i >= kAtOnce) std::this_thread::sleep_for(kPause);
      sys::interrupt(thread.tid());
      const sys::Stop report = wait_for_stop(thread.tid(), deadline, stop);
      if (report.kind == sys::Stop::Kind::exited) {
        if (thread.tid() == pid_) throw_gone(pid_);
        thread.forget();
        break;
      }
      thread.stopped_again(report);
    }
  }
  if (!ran) return;
  std::vector<Tracee> left;
  for (Tracee& thread : threads_)
    if (thread.tid() != 0) left.push_back(std::move(thread));
  threads_ = std::move(left);
  while (stop_new_threads(stop)) {  // those that they have made meanwhile
  }
}

void FrozenProcess::kill(const std::function<void()>& killed) {
  sys::send_signal(pid_, SIGKILL);
  killed();
  // Until the last thread has gone: then all its ids but the leader's are free, and that one is as
  // soon as its parent has reaped it.
  for (auto thread = threads_.rbegin(); thread != threads_.rend(); ++thread) {
    while (sys::wait_stop(thread->tid()).kind != sys::Stop::Kind::exited) {
    }
    thread->forget();
  }
  threads_.clear();
}

}  // namespace icecore
