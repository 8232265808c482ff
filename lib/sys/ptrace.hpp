// SPDX-License-Identifier: Apache-2.0
#pragma once

// ptrace(2), as icecore uses it.  Every other file speaks in these terms.
//
// Kernel facts relied on here:
//  * An attachment belongs to the tracer's *thread*; from any other thread every request is ESRCH.
//    When that thread ends, all its tracees run on (or are killed, with PTRACE_O_EXITKILL).
//  * PTRACE_SEIZE (Linux 3.4) does not stop the thread; PTRACE_INTERRUPT then yields
//    PTRACE_EVENT_STOP.  A signal that is just being delivered is reported first, instead.
//  * PTRACE_EVENT_STOP happens inside the kernel's signal code, so a system call it interrupted
//    shows as rax = -ERESTART… with orig_rax still set, and is restarted by the kernel on the way
//    out: also after the tracer has set all registers anew (the decision is made from the
//    registers at that moment).
//  * Some calls do not restart by themselves: epoll_wait, sigtimedwait, semtimedop and others
//  return
//    EINTR for a mere stop.  Writing -ERESTARTNOHAND over the -EINTR makes the kernel do the right
//    thing: it restarts when no signal is delivered and gives EINTR when a handler runs.
//  * A child made with CLONE_PTRACE by a seized thread is seized from birth by the same tracer with
//    the same options and reports PTRACE_EVENT_STOP before its first user instruction; its parent
//    does not stop.
//  * The death of a thread group's leader is reported only when all other threads are gone, and a
//    dead thread that is traced is not gone before its tracer has waited for it.
//  * SIGCONT for any thread of a process gives PTRACE_EVENT_STOP in each of its seized threads, in
//    one that is stopped as soon as it is resumed; blocked or not.
//  * ESRCH means "no such thread" or "not stopped"; only the caller can tell which.
//  * Seizing a zombie is EPERM, the same as lacking permission.
//  * PTRACE_GETSIGMASK gives the mask that will be in force after a sigsuspend-like call, not the
//    temporary one; PTRACE_SETSIGMASK ends the temporary one.
//  * PTRACE_SETREGSET of NT_X86_XSTATE wants exactly the size that GETREGSET gives.
//  * PTRACE_O_SUSPEND_SECCOMP and PTRACE_SECCOMP_GET_FILTER want CAP_SYS_ADMIN, and a tracer
//  without
//    seccomp of its own.  The suspension ends with the attachment, and children made with
//    CLONE_PTRACE have it too.  GET_FILTER counts from the oldest filter (0).
//  * A process that was stopped (SIGSTOP) reports the stop signal with its PTRACE_EVENT_STOP.  It
//  may
//    be resumed by its tracer all the same, and is stopped again when the tracer lets go, unless
//    SIGCONT came.
//  * SIGCHLD at the stop of a tracee counts as ignored only if the tracer's thread does not block
//    it; else it wakes any thread of the tracer that does not.
//  * A signal sent to a traced thread is reported even when it is ignored, unless it is blocked.

#include <signal.h>
#include <sys/types.h>
#include <sys/user.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace icecore::sys {

using Registers = ::user_regs_struct;
using SignalMask = std::uint64_t;

/// Attaches to one thread without stopping it.  False when the thread has exited.
/// `kill_with_us`: the kernel kills the thread when our thread ends (PTRACE_O_EXITKILL).
bool seize(pid_t tid, bool kill_with_us = false);

/// Asks a seized thread to stop.  That the thread died meanwhile is not an error.
void interrupt(pid_t tid);

/// How a traced thread reports to us.
struct Stop {
  enum class Kind {
    trap,     ///< PTRACE_EVENT_STOP: our interrupt, a new thread, or a group stop
    signal,   ///< about to receive `signal`
    syscall,  ///< entering or leaving a system call
    event,    ///< another PTRACE_EVENT_…, in `signal`
    exited,   ///< gone; `status` is its wait status
  };
  Kind kind;
  int signal = 0;
  int status = 0;
};

/// The thread's report, if there is one now.
std::optional<Stop> poll_stop(pid_t tid);

/// Waits for the thread's report.
Stop wait_stop(pid_t tid);

/// Lets the thread run until its next report, delivering `signal` unless it is 0.
/// False when it is gone.
bool resume(pid_t tid, int signal = 0);

/// The same, also stopping at the entry and the exit of its next system call.
bool resume_to_syscall(pid_t tid, int signal = 0);

/// Lets a stopped thread live when our thread ends, whatever it was seized with.
void spare(pid_t tid);

/// Runs one instruction.
bool single_step(pid_t tid);

/// Lets the thread run on, delivering `signal` unless it is 0.  That the thread died meanwhile is
/// not an error.
void detach(pid_t tid, int signal) noexcept;

/// The rest is for stopped threads.
Registers registers(pid_t tid);
void set_registers(pid_t tid, const Registers& registers);
bool try_set_registers(pid_t tid, const Registers& registers) noexcept;

/// Room for the XSAVE area of any machine.
using XstateBuffer = std::array<std::uint8_t, std::size_t{64} << 10>;

/// The uncompacted XSAVE area, as large as this machine's is, in `buffer`.
std::span<const std::uint8_t> xstate(pid_t tid, XstateBuffer& buffer);
void set_xstate(pid_t tid, std::span<const std::uint8_t> xstate);

SignalMask signal_mask(pid_t tid);
void set_signal_mask(pid_t tid, SignalMask mask);
bool try_set_signal_mask(pid_t tid, SignalMask mask) noexcept;

/// The signal of a Stop::Kind::signal.
siginfo_t stop_siginfo(pid_t tid);
bool try_set_stop_siginfo(pid_t tid, const siginfo_t& info) noexcept;

/// Signals that wait for delivery, in order; `shared`: those sent to the whole process.
std::vector<siginfo_t> pending_signals(pid_t tid, bool shared);

struct Rseq {
  std::uint64_t address = 0;
  std::uint32_t size = 0;
  std::uint32_t signature = 0;
};
/// Linux 5.13.
Rseq rseq(pid_t tid);

struct SyscallUserDispatch {
  bool enabled = false;
};
/// Linux 6.4.
SyscallUserDispatch syscall_user_dispatch(pid_t tid);

struct RobustList {
  std::uint64_t head = 0;
  std::uint64_t size = 0;
};
/// get_robust_list(2): needs no stop, only the right to trace.
RobustList robust_list(pid_t tid);

/// Debug registers in use?
bool uses_debug_registers(pid_t tid);

/// ioperm(2): may it use I/O ports?  (iopl(2) shows nowhere.)
bool uses_io_ports(pid_t tid);

/// A segment of set_thread_area(2): struct user_desc.
using TlsSlot = std::array<std::uint8_t, 16>;
/// Those that are in use.  Empty also where the kernel has none (CONFIG_IA32_EMULATION).
std::vector<TlsSlot> tls_slots(pid_t tid);
void set_tls_slot(pid_t tid, const TlsSlot& slot);

/// From now on and for as long as we trace it, the thread, and those it makes, are not held to
/// their seccomp filters.  False when we may not do that.
bool suspend_seccomp(pid_t tid, bool kill_with_us);

struct SeccompFilter {
  std::vector<std::uint8_t> instructions;  ///< struct sock_filter, 8 bytes each
  bool log = false;
};
/// Filter `index` in the order in which they were installed; nothing when there are fewer.
/// Throws with errno EACCES when we ourselves live under seccomp.
std::optional<SeccompFilter> seccomp_filter(pid_t tid, unsigned index);

}  // namespace icecore::sys
