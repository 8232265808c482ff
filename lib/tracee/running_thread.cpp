// SPDX-License-Identifier: Apache-2.0
#include "tracee/running_thread.hpp"

#include <fmt/format.h>
#include <signal.h>

#include "icecore/error.hpp"
#include "sys/process.hpp"
#include "sys/procfs.hpp"

namespace icecore {

RunningThread::RunningThread(Tracee& thread)
    : thread_(thread), mask_(sys::signal_mask(thread.tid())) {
  sys::set_signal_mask(thread_.tid(), ~(sys::SignalMask{1} << (SIGTRAP - 1)));
  sys::detach(thread_.tid(), 0);
}

RunningThread::~RunningThread() {
  try {
    stop();
  } catch (const Error&) {
    // It runs on, which is what the rest of the process is about to do.
  }
}

void RunningThread::throw_ended() {
  running_ = false;
  throw Error{Errc::target_gone,
              fmt::format("thread {} ended while it worked for the driver", thread_.tid())};
}

void RunningThread::service() {
  const auto stat = sys::read_stat(thread_.tid());
  if (!stat || stat->state == 'Z' || stat->state == 'X') throw_ended();
  if (stat->state != 'T') return;
  stop_owed_ = true;
  sys::send_signal(thread_.tid(), SIGCONT);  // which the stop that is owed will take back
}

/// True when the stop is the one that an interrupt asks for.
bool RunningThread::take(const sys::Stop& report) {
  switch (report.kind) {
    case sys::Stop::Kind::exited:
      throw_ended();
    case sys::Stop::Kind::signal:
      // All that can be blocked is: the rest is its own doing, or a stop of the whole process.
      stop_owed_ = stop_owed_ || report.signal == SIGSTOP;
      sys::resume(thread_.tid(), report.signal == SIGSTOP ? 0 : report.signal);
      return false;
    case sys::Stop::Kind::trap:
      return true;
    default:
      sys::resume(thread_.tid());
      return false;
  }
}

void RunningThread::stop() {
  if (!running_) return;
  if (!sys::seize(thread_.tid())) throw_ended();
  sys::interrupt(thread_.tid());
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (;;) {
    const auto report = sys::poll_stop(thread_.tid());
    if (report && take(*report)) break;
    if (std::chrono::steady_clock::now() > deadline) {
      running_ = false;
      throw Error{
          Errc::unsupported,
          fmt::format("thread {}, which works for the CUDA driver, does not stop", thread_.tid())};
    }
    if (!report) sys::pause_for(std::chrono::microseconds{20});
  }
  running_ = false;
  sys::set_signal_mask(thread_.tid(), mask_);
  thread_.has_run();
  if (stop_owed_) sys::send_signal(thread_.tid(), SIGSTOP);
}

}  // namespace icecore
