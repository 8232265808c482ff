// SPDX-License-Identifier: Apache-2.0
#include "tracee/batch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "icecore/error.hpp"

namespace icecore {

void throw_gone(const Tracee& thread) {
  throw Error{Errc::target_gone, fmt::format("thread {} ended while it was frozen", thread.tid())};
}

BatchContext recovery_context(const Tracee& thread, pid_t inner_pid, int report_signal) noexcept {
  const sys::Registers back = resolved(thread.registers());
  return {
      .first_call = 0,
      .calls = 0,
      .pid = static_cast<std::uint64_t>(inner_pid),
      .tid = static_cast<std::uint64_t>(thread.inner_tid()),
      .signal = static_cast<std::uint64_t>(report_signal),
      .mask = thread.signal_mask(),
      .r15 = back.r15,
      .r14 = back.r14,
      .r13 = back.r13,
      .r12 = back.r12,
      .rbp = back.rbp,
      .rbx = back.rbx,
      .r11 = back.r11,
      .r10 = back.r10,
      .r9 = back.r9,
      .r8 = back.r8,
      .rax = back.rax,
      .rcx = back.rcx,
      .rdx = back.rdx,
      .rsi = back.rsi,
      .rdi = back.rdi,
      .rip = back.rip,
      .cs = back.cs,
      .rflags = back.eflags,
      .rsp = back.rsp,
      .ss = back.ss,
  };
}

sys::Registers entering_kernel(const Tracee& thread, std::uint64_t rip, long number,
                               std::initializer_list<std::uint64_t> arguments) {
  std::array<std::uint64_t, 6> values{};
  std::ranges::copy(arguments, values.begin());
  sys::Registers registers = thread.registers();
  registers.rip = rip;
  registers.rax = static_cast<std::uint64_t>(number);
  registers.orig_rax = ~0ULL;
  registers.rdi = values[0];
  registers.rsi = values[1];
  registers.rdx = values[2];
  registers.r10 = values[3];
  registers.r8 = values[4];
  registers.r9 = values[5];
  return registers;
}

namespace {

/// Whom a signal is from.  The kernel does not say when the queue of its user is full.
enum class Sender { ourselves, unknown, another };

Sender sender_of(const siginfo_t& info, pid_t inner_pid) {
  if (info.si_code == SI_TKILL && info.si_pid == inner_pid) return Sender::ourselves;
  return info.si_code == SI_USER && info.si_pid == 0 ? Sender::unknown : Sender::another;
}

/// True at the end of a list, in the call that sends the signal: of two signals with one number the
/// kernel keeps the first alone, and that may have been somebody else's.
bool has_reported(const Tracee& thread) {
  constexpr std::uint64_t kTgkill = 234;
  const sys::Registers registers = sys::registers(thread.tid());
  return registers.orig_rax == kTgkill && registers.rax == 0;
}

/// True when the signal is for a page that cannot be touched; the thread then goes on behind it.
bool passes_over(const Tracee& thread, const siginfo_t& info, std::uint64_t code) {
  if (code == 0 || (info.si_signo != SIGSEGV && info.si_signo != SIGBUS)) return false;
  const auto address_of = [&](const std::byte* label) {
    return code + static_cast<std::uint64_t>(label - icecore_batch_begin);
  };
  sys::Registers registers = sys::registers(thread.tid());
  if (info.si_code <= 0 || registers.rip != address_of(icecore_batch_touch)) return false;
  registers.rip = address_of(icecore_batch_touched);
  sys::set_registers(thread.tid(), registers);
  return true;
}

}  // namespace

void wait_for_report(Tracee& thread, pid_t inner_pid, int report_signal, std::uint64_t code) {
  for (;;) {
    const sys::Stop stop = sys::wait_stop(thread.tid());
    if (stop.kind == sys::Stop::Kind::exited) throw_gone(thread);
    if (stop.kind == sys::Stop::Kind::signal) {
      const siginfo_t info = sys::stop_siginfo(thread.tid());
      const Sender sender = sender_of(info, inner_pid);
      // Somebody else's: the thread gets it when it runs on.
      if (passes_over(thread, info, code)) {
        if (!sys::resume(thread.tid())) throw_gone(thread);
        continue;
      }
      const bool is_report = info.si_signo == report_signal && sender == Sender::ourselves;
      if (!is_report && (info.si_signo != report_signal || sender == Sender::another))
        thread.suspend_signal(info);
      if (is_report || (info.si_signo == report_signal && has_reported(thread))) return;
    }
    if (!sys::resume(thread.tid())) throw_gone(thread);
  }
}

}  // namespace icecore
