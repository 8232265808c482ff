// SPDX-License-Identifier: Apache-2.0
#pragma once

// seccomp(2): strict mode and filters, of each thread.
//
// While we trace a process its filters do not count (PTRACE_O_SUSPEND_SECCOMP), neither when we
// look at it nor when we build it.

#include "image/state_generated.h"
#include "state/capture.hpp"
#include "tracee/call_stream.hpp"

namespace icecore {

/// Makes it safe to enter a thread, or says why it is not.
void suspend_seccomp(const Tracee& thread, const sys::Status& status, Refusals& refusals);

/// Adds to process.seccomp what is not in it yet; returns the index, -1 when the thread has none.
std::int32_t capture_seccomp(Capture& capture, const Tracee& thread, const sys::Status& status,
                             state::ProcessT& process);

bool uses_seccomp(const state::ProcessT& process);

/// For a process under construction that will have seccomp, before its threads are made.
void suspend_seccomp_of_stub(pid_t pid);

/// The index that all threads have, for filters; else -1.
std::int32_t common_seccomp(const state::ProcessT& process);

/// Adds the calls with which a thread puts itself under `seccomp`, or under a filter, `for_all`
/// every thread of the process.  It needs CAP_SYS_ADMIN still.
void rebuild_seccomp(const state::SeccompT& seccomp, CallList& list);
void rebuild_seccomp_filter(const state::SeccompFilterT& filter, bool for_all, CallList& list);
std::size_t rebuild_seccomp_bytes(const state::SeccompFilterT& filter);
std::size_t rebuild_seccomp_calls(const state::SeccompT& seccomp);
std::size_t rebuild_seccomp_bytes(const state::SeccompT& seccomp);

void refuse_lacking_seccomp(const state::ProcessT& process, const sys::Status& own,
                            Refusals& refusals);

}  // namespace icecore
