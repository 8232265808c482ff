// SPDX-License-Identifier: Apache-2.0
#include "tracee/tracee.hpp"

#include <linux/rseq.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

#include "sys/remote_memory.hpp"

namespace icecore {
namespace {

// What the kernel leaves in rax of a system call that a stop interrupted (include/linux/errno.h).
constexpr long kEintr = -4;
constexpr long kRestartSys = -512;
constexpr long kRestartNoHand = -514;
constexpr long kRestartBlock = -516;

// Calls that return EINTR for a mere stop, although no signal came, and that may be made again:
// the kernel has changed nothing yet.
constexpr std::array kInterruptedByStops{
    SYS_epoll_wait,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_rt_sigtimedwait,
    SYS_semop,
    SYS_semtimedop,
    SYS_msgsnd,
    SYS_msgrcv,
    SYS_io_getevents,
    SYS_io_pgetevents,
    SYS_mq_timedsend,
    SYS_mq_timedreceive,
    SYS_io_uring_enter,
    // With a timeout that the kernel cannot write to, where it would put the time left.
    SYS_ppoll,
    SYS_pselect6,
    SYS_select,
    // Sockets with a timeout (SO_RCVTIMEO, SO_SNDTIMEO).
    SYS_read,
    SYS_readv,
    SYS_write,
    SYS_writev,
    SYS_recvfrom,
    SYS_recvmsg,
    SYS_sendto,
    SYS_sendmsg,
    SYS_recvmmsg,
    SYS_sendmmsg,
    SYS_sendfile,
    SYS_splice,
    SYS_connect,
    SYS_accept,
    SYS_accept4,
};

long result_of(const sys::Registers& registers) { return static_cast<long>(registers.rax); }

bool interrupted_by_stop(const sys::Registers& registers) {
  const auto number = static_cast<long>(registers.orig_rax);
  return number >= 0 && result_of(registers) == kEintr &&
         std::ranges::find(kInterruptedByStops, number) != kInterruptedByStops.end();
}

}  // namespace

Tracee::Tracee(pid_t tid, const sys::Stop& stop) : tid_(tid), inner_tid_(tid) {
  stopped_again(stop);
}

void Tracee::stopped_again(const sys::Stop& stop) {
  if (stop.kind == sys::Stop::Kind::signal) {
    registers_ = sys::registers(tid_);
    mask_ = sys::signal_mask(tid_);
    suspended_ = sys::stop_siginfo(tid_);
    abort_restartable_sequence();
  } else {
    look();
  }
}

void Tracee::look() {
  registers_ = sys::registers(tid_);
  mask_ = sys::signal_mask(tid_);
  if (interrupted_by_stop(registers_)) {
    // At once, so that the program sees no EINTR even if we are killed in the next moment.
    registers_.rax = static_cast<unsigned long long>(kRestartNoHand);
    sys::set_registers(tid_, registers_);
  }
  abort_restartable_sequence();
}

/// The kernel sends a thread that was stopped in one there by itself, but only if it runs on with
/// the registers that it had: once it has run elsewhere for us, the kernel has forgotten the
/// sequence, and the thread would go on in its middle as if nobody had been in between.
void Tracee::abort_restartable_sequence() {
  if (static_cast<long>(registers_.orig_rax) >= 0) return;  // a sequence makes no system calls
  const sys::Rseq rseq = sys::rseq(tid_);
  if (rseq.address == 0) return;
  const sys::RemoteMemory memory{tid_};
  std::uint64_t descriptor = 0;
  const auto field = std::as_writable_bytes(std::span{&descriptor, 1});
  if (!memory.try_read(rseq.address + offsetof(struct ::rseq, rseq_cs), field) || descriptor == 0)
    return;
  struct ::rseq_cs sequence {};
  if (!memory.try_read(descriptor, std::as_writable_bytes(std::span{&sequence, 1}))) return;
  if (registers_.rip - sequence.start_ip >= sequence.post_commit_offset) return;
  registers_.rip = sequence.abort_ip;
  sys::set_registers(tid_, registers_);
}

void Tracee::has_run() { look(); }

void Tracee::disturb(const sys::Registers& registers, sys::SignalMask mask) {
  disturbed_ = true;
  sys::set_registers(tid_, registers);
  sys::set_signal_mask(tid_, mask);
}

void Tracee::put_back() {
  // The mask first: should we die in between, the thread is still where it puts both back itself.
  sys::set_signal_mask(tid_, mask_);
  sys::set_registers(tid_, registers_);
  disturbed_ = false;
}

Tracee::~Tracee() {
  if (tid_ == 0) return;
  if (disturbed_) {
    sys::try_set_signal_mask(tid_, mask_);
    sys::try_set_registers(tid_, registers_);
  }
  if (suspended_) sys::try_set_stop_siginfo(tid_, *suspended_);
  sys::detach(tid_, suspended_ ? suspended_->si_signo : 0);
}

bool in_syscall(const sys::Registers& registers) noexcept {
  return static_cast<long>(registers.orig_rax) >= 0 && result_of(registers) <= kRestartSys &&
         result_of(registers) >= kRestartBlock;
}

sys::Registers resolved(const sys::Registers& registers) noexcept {
  sys::Registers plain = registers;
  if (in_syscall(registers)) {
    plain.rax = registers.orig_rax;
    plain.rip -= 2;
  }
  plain.orig_rax = ~0ULL;
  return plain;
}

}  // namespace icecore
