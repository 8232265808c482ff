// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <utility>

#include "sys/ptrace.hpp"

namespace icecore {

/// One stopped thread.  (As in ptrace(2), "tracee" means a thread, never a process.)
///
/// The destructor lets the thread run on from where it stopped, also while an exception unwinds:
/// with the registers and the signal mask it had, and the signal it was about to receive.
/// Use it on the thread that seized it.
class Tracee {
 public:
  /// Takes over a thread that has just stopped.
  Tracee(pid_t tid, const sys::Stop& stop);
  Tracee(Tracee&& other) noexcept
      : tid_(std::exchange(other.tid_, 0)),
        inner_tid_(other.inner_tid_),
        registers_(other.registers_),
        mask_(other.mask_),
        disturbed_(other.disturbed_),
        suspended_(other.suspended_) {}
  Tracee& operator=(Tracee&&) = delete;
  ~Tracee();

  pid_t tid() const noexcept { return tid_; }

  /// The id that the thread itself knows: another one in a pid namespace.
  pid_t inner_tid() const noexcept { return inner_tid_; }
  void set_inner_tid(pid_t tid) noexcept { inner_tid_ = tid; }

  /// What the thread runs on with: as they were at the stop, or at the abort handler of the
  /// restartable sequence that it was in.
  const sys::Registers& registers() const noexcept { return registers_; }
  sys::SignalMask signal_mask() const noexcept { return mask_; }

  /// What the thread runs on with from now on.
  void set_registers(const sys::Registers& registers) { registers_ = registers; }
  void set_signal_mask(sys::SignalMask mask) { mask_ = mask; }

  /// A signal that the thread was about to receive when it stopped.
  const std::optional<siginfo_t>& suspended_signal() const noexcept { return suspended_; }

  /// Remembers a signal that arrived while the thread ran for us.
  void suspend_signal(const siginfo_t& info) { suspended_ = info; }

  /// Gives the thread other registers and another mask for a while.
  void disturb(const sys::Registers& registers, sys::SignalMask mask);

  /// The thread has run on by itself and stopped once more.
  void stopped_again(const sys::Stop& stop);

  /// Ends that: the thread, which stays stopped, has its own again.
  void put_back();

  /// True between disturb() and put_back().
  bool is_disturbed() const noexcept { return disturbed_; }

  /// The thread ran as itself for a while and has stopped again, not for a signal: what it runs on
  /// with is now what it has.
  void has_run();

  /// Lets go without letting run: the thread is dead, or about to be killed.
  void forget() noexcept { tid_ = 0; }

 private:
  void look();
  void abort_restartable_sequence();

  pid_t tid_;  // 0 once moved from
  pid_t inner_tid_;
  sys::Registers registers_{};
  sys::SignalMask mask_ = 0;
  bool disturbed_ = false;
  std::optional<siginfo_t> suspended_;
};

/// True when the thread was inside a system call: `registers` are those of a stop in the kernel.
bool in_syscall(const sys::Registers& registers) noexcept;

/// The registers from which a thread runs its system call again from the start, or goes on behind
/// it, without the kernel's help.
sys::Registers resolved(const sys::Registers& registers) noexcept;

}  // namespace icecore
