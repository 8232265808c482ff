// SPDX-License-Identifier: Apache-2.0
#pragma once

// What C++ has to know of the code that runs inside a tracee (arch/x86_64/batch.S).

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>

#include "tracee/tracee.hpp"

extern "C" {
extern const std::byte icecore_batch_begin[];
extern const std::byte icecore_batch_tiles[];
extern const std::byte icecore_batch_single[];
extern const std::byte icecore_batch_copy[];
extern const std::byte icecore_batch_touch[];
extern const std::byte icecore_batch_touched[];
extern const std::byte icecore_batch_end[];
}

namespace icecore {

/// What r12 points to while a thread runs the code: its calls, and what it needs to go on by itself
/// should its tracer die.
struct BatchContext {
  std::uint64_t first_call;
  std::uint64_t calls;
  std::uint64_t pid;
  std::uint64_t tid;
  std::uint64_t signal;
  sys::SignalMask mask;
  std::uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
  std::uint64_t rip, cs, rflags, rsp, ss;
};
static_assert(offsetof(BatchContext, mask) == 40 && offsetof(BatchContext, rdi) == 160 &&
              offsetof(BatchContext, ss) == 200);
constexpr std::size_t kContextBytes = 256;
static_assert(sizeof(BatchContext) <= kContextBytes);

inline std::span<const std::byte> loop_code() { return {icecore_batch_begin, icecore_batch_end}; }

constexpr sys::SignalMask only(int signal) { return sys::SignalMask{1} << (signal - 1); }

constexpr bool is_error(std::int64_t result) { return result < 0 && result >= -4095; }

/// The context of a thread without calls.
BatchContext recovery_context(const Tracee& thread, pid_t inner_pid, int report_signal) noexcept;

/// The thread's registers, but at `rip` with a system call in them.
sys::Registers entering_kernel(const Tracee& thread, std::uint64_t rip, long number,
                               std::initializer_list<std::uint64_t> arguments);

/// Waits until the thread, which runs the code, reports its end.  Signals that arrive meanwhile are
/// kept for it.  `code`: where the code lies, for what it may touch and cannot; 0 where it touches
/// nothing.  Throws Errc::target_gone.
void wait_for_report(Tracee& thread, pid_t inner_pid, int report_signal, std::uint64_t code = 0);

[[noreturn]] void throw_gone(const Tracee& thread);

}  // namespace icecore
