// SPDX-License-Identifier: Apache-2.0
#include "tracee/process_copy.hpp"

#include <sched.h>
#include <signal.h>

#include "icecore/error.hpp"
#include "sys/process.hpp"
#include "sys/ptrace.hpp"
#include "tracee/batch.hpp"

namespace icecore {

std::optional<ProcessCopy> ProcessCopy::try_make(FrozenProcess& process, Foothold& foothold) {
  Tracee& leader = process.leader();
  const std::int64_t made =
      foothold.copy_process(leader, CLONE_PTRACE | CLONE_PARENT | CLONE_FILES | CLONE_FS);
  leader.put_back();
  if (is_error(made)) return std::nullopt;

  ProcessCopy copy{static_cast<pid_t>(made)};
  if (sys::wait_stop(copy.pid()).kind == sys::Stop::Kind::exited) {
    copy.pid_ = 0;
    return std::nullopt;
  }
  foothold.clear(sys::RemoteMemory{copy.pid()});
  return copy;
}

ProcessCopy::~ProcessCopy() {
  if (pid_ == 0) return;
  sys::send_signal(pid_, SIGKILL);
  try {
    while (sys::wait_stop(pid_).kind != sys::Stop::Kind::exited) {
    }
  } catch (const Error&) {
    // Somebody else has reaped it.
  }
}

}  // namespace icecore
