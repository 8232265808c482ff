// SPDX-License-Identifier: Apache-2.0
#include "preflight.hpp"

#include <fmt/format.h>

#include "icecore/error.hpp"
#include "state/attributes.hpp"
#include "sys/process.hpp"
#include "sys/procfs.hpp"

namespace icecore {

void preflight(pid_t pid) {
  const auto refuse = [&](Errc code, const char* what) {
    throw Error{code, fmt::format("process {}: {}", pid, what)};
  };
  if (pid <= 0) refuse(Errc::invalid_argument, "is no process id");
  const auto stat = sys::read_stat(pid);
  const auto status = sys::Status::read(pid);
  if (!stat || !status) refuse(Errc::target_gone, "there is no such process");
  if (pid == sys::current_process())
    refuse(Errc::invalid_argument, "is icecore itself, which cannot freeze itself");
  if (status->number("Tgid") != static_cast<std::uint64_t>(pid))
    refuse(Errc::invalid_argument, "is a thread, not a process: give the process id");
  if (stat->kernel_thread())
    refuse(Errc::invalid_argument, "is a kernel thread, which cannot be snapshotted");
  if (stat->state == 'Z' && sys::list_threads(pid).size() > 1)
    refuse(Errc::unsupported,
           "its first thread has ended while others run on: such a process cannot be rebuilt");
  if (stat->state == 'Z' || stat->state == 'X')
    refuse(Errc::target_gone, "is a zombie: it has ended already");
  if (const auto tracer = status->number("TracerPid"); tracer != 0)
    throw Error{Errc::unsupported,
                fmt::format("process {}: is already traced by process {} (a debugger, strace, or "
                            "another icecore): end that first",
                            pid, tracer)};
  sys::check_may_trace(pid);

  Refusals refusals;
  refuse_other_worlds(pid, refusals);
  refusals.throw_if_any(Errc::unsupported, fmt::format("process {} cannot be snapshotted:", pid));
}

}  // namespace icecore
