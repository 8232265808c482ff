// SPDX-License-Identifier: Apache-2.0
#include "sys/ptrace.hpp"

#include <elf.h>
#include <linux/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstring>

#include "sys/call.hpp"
#include "sys/process.hpp"
#include "sys/procfs.hpp"

namespace icecore::sys {
namespace {

constexpr int kGetUserDispatch = 0x4211;  // newer than Debian 12's headers
constexpr int kSeccompGetMetadata = 0x420d;
constexpr int kGetThreadArea = 25, kSetThreadArea = 26;  // of <asm/ptrace-abi.h>

long options_for(bool kill_with_us) {
  return PTRACE_O_TRACESYSGOOD | (kill_with_us ? PTRACE_O_EXITKILL | PTRACE_O_TRACEEXEC : 0);
}

long request(int what, pid_t tid, std::uint64_t address, void* data) noexcept {
  return ::syscall(SYS_ptrace, what, tid, address, data);
}

Stop decode(int status) {
  if (!WIFSTOPPED(status)) return {.kind = Stop::Kind::exited, .status = status};
  const int signal = WSTOPSIG(status);
  const int event = status >> 16;
  if (event == PTRACE_EVENT_STOP)
    return {.kind = Stop::Kind::trap, .signal = signal, .status = status};
  if (event != 0) return {.kind = Stop::Kind::event, .signal = event, .status = status};
  if (signal == (SIGTRAP | 0x80)) return {.kind = Stop::Kind::syscall, .status = status};
  return {.kind = Stop::Kind::signal, .signal = signal, .status = status};
}

bool go_on(int what, pid_t tid, int signal, const char* verb) {
  void* const data = reinterpret_cast<void*>(static_cast<std::intptr_t>(signal));
  if (request(what, tid, 0, data) == 0) return true;
  if (errno == ESRCH) return false;
  throw_errno(errno, fmt::format("{} thread {}", verb, tid));
}

bool leads_others(pid_t tid) {
  const auto status = Status::read(tid);
  return status && status->number("Tgid") == static_cast<std::uint64_t>(tid) &&
         status->number("Threads") > 1;
}

template <class Value>
Value read_regset(pid_t tid, unsigned note, const char* what) {
  Value value{};
  ::iovec part{&value, sizeof value};
  checked([&] { return request(PTRACE_GETREGSET, tid, note, &part); }, "read {} of thread {}", what,
          tid);
  return value;
}

}  // namespace

bool seize(pid_t tid, bool kill_with_us) {
  const long options = options_for(kill_with_us);
  if (request(PTRACE_SEIZE, tid, 0, reinterpret_cast<void*>(options)) == 0) return true;
  const int err = errno;
  if (err == ESRCH || (err == EPERM && is_zombie(tid))) return false;
  throw_errno(err, fmt::format("seize thread {}", tid));
}

void interrupt(pid_t tid) {
  if (request(PTRACE_INTERRUPT, tid, 0, nullptr) != 0 && errno != ESRCH)
    throw_errno(errno, fmt::format("interrupt thread {}", tid));
}

std::optional<Stop> poll_stop(pid_t tid) {
  int status = 0;
  const pid_t who =
      checked([&] { return ::waitpid(tid, &status, __WALL | WNOHANG); }, "wait for thread {}", tid);
  if (who == 0) return std::nullopt;
  return decode(status);
}

Stop wait_stop(pid_t tid) {
  for (unsigned attempt = 0; attempt < 20; ++attempt) {
    if (const auto stop = poll_stop(tid)) return *stop;
    yield();
  }
  // The death of a leader is not reported before all its other threads, which may be waiting for
  // us, have been reaped: so whoever waits for one looks from time to time whether it is dead.
  const bool may_die_unseen = leads_others(tid);
  for (unsigned look = 1; may_die_unseen; ++look) {
    if (const auto stop = poll_stop(tid)) return *stop;
    if (look % 4 == 0 && is_zombie(tid)) return {.kind = Stop::Kind::exited};
    pause_for(std::chrono::microseconds{look < 20 ? 50 : 200});
  }
  int status = 0;
  checked([&] { return ::waitpid(tid, &status, __WALL); }, "wait for thread {}", tid);
  return decode(status);
}

bool resume(pid_t tid, int signal) { return go_on(PTRACE_CONT, tid, signal, "resume"); }

bool resume_to_syscall(pid_t tid, int signal) {
  return go_on(PTRACE_SYSCALL, tid, signal, "resume");
}

void spare(pid_t tid) {
  void* const options = reinterpret_cast<void*>(static_cast<std::intptr_t>(PTRACE_O_TRACESYSGOOD));
  checked([&] { return request(PTRACE_SETOPTIONS, tid, 0, options); }, "let thread {} live", tid);
}

bool single_step(pid_t tid) { return go_on(PTRACE_SINGLESTEP, tid, 0, "step"); }

void detach(pid_t tid, int signal) noexcept {
  request(PTRACE_DETACH, tid, 0, reinterpret_cast<void*>(static_cast<std::intptr_t>(signal)));
}

Registers registers(pid_t tid) { return read_regset<Registers>(tid, NT_PRSTATUS, "registers"); }

bool try_set_registers(pid_t tid, const Registers& registers) noexcept {
  ::iovec part{const_cast<Registers*>(&registers), sizeof registers};
  return request(PTRACE_SETREGSET, tid, NT_PRSTATUS, &part) == 0;
}

void set_registers(pid_t tid, const Registers& registers) {
  if (!try_set_registers(tid, registers))
    throw_errno(errno, fmt::format("set registers of thread {}", tid));
}

std::span<const std::uint8_t> xstate(pid_t tid, XstateBuffer& buffer) {
  ::iovec part{buffer.data(), buffer.size()};
  checked([&] { return request(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &part); },
          "read extended registers of thread {}", tid);
  return std::span{buffer}.first(part.iov_len);
}

void set_xstate(pid_t tid, std::span<const std::uint8_t> xstate) {
  ::iovec part{const_cast<std::uint8_t*>(xstate.data()), xstate.size()};
  checked([&] { return request(PTRACE_SETREGSET, tid, NT_X86_XSTATE, &part); },
          "set extended registers of thread {}", tid);
}

SignalMask signal_mask(pid_t tid) {
  SignalMask mask = 0;
  checked([&] { return request(PTRACE_GETSIGMASK, tid, sizeof mask, &mask); },
          "read signal mask of thread {}", tid);
  return mask;
}

bool try_set_signal_mask(pid_t tid, SignalMask mask) noexcept {
  return request(PTRACE_SETSIGMASK, tid, sizeof mask, &mask) == 0;
}

void set_signal_mask(pid_t tid, SignalMask mask) {
  if (!try_set_signal_mask(tid, mask))
    throw_errno(errno, fmt::format("set signal mask of thread {}", tid));
}

siginfo_t stop_siginfo(pid_t tid) {
  siginfo_t info{};
  checked([&] { return request(PTRACE_GETSIGINFO, tid, 0, &info); }, "read signal of thread {}",
          tid);
  return info;
}

bool try_set_stop_siginfo(pid_t tid, const siginfo_t& info) noexcept {
  siginfo_t copy = info;
  return request(PTRACE_SETSIGINFO, tid, 0, &copy) == 0;
}

std::vector<siginfo_t> pending_signals(pid_t tid, bool shared) {
  struct Arguments {
    std::uint64_t offset;
    std::uint32_t flags;
    std::int32_t count;
  };
  constexpr std::size_t kAtOnce = 32;
  std::vector<siginfo_t> pending;
  for (;;) {
    std::array<siginfo_t, kAtOnce> some{};
    Arguments arguments{pending.size(), shared ? 1U : 0U, kAtOnce};
    const long got = checked(
        [&] { return ::syscall(SYS_ptrace, PTRACE_PEEKSIGINFO, tid, &arguments, some.data()); },
        "read pending signals of thread {}", tid);
    pending.insert(pending.end(), some.begin(), some.begin() + got);
    if (static_cast<std::size_t>(got) < kAtOnce) return pending;
  }
}

Rseq rseq(pid_t tid) {
  struct Configuration {
    std::uint64_t address;
    std::uint32_t size;
    std::uint32_t signature;
    std::uint32_t flags;
    std::uint32_t pad;
  } configuration{};
  if (request(PTRACE_GET_RSEQ_CONFIGURATION, tid, sizeof configuration, &configuration) < 0) {
    if (errno == EIO) return {};  // a kernel without them
    throw_errno(errno, fmt::format("read rseq of thread {}", tid));
  }
  return {configuration.address, configuration.size, configuration.signature};
}

SyscallUserDispatch syscall_user_dispatch(pid_t tid) {
  struct Configuration {
    std::uint64_t mode;
    std::uint64_t selector;
    std::uint64_t offset;
    std::uint64_t length;
  } configuration{};
  if (request(kGetUserDispatch, tid, sizeof configuration, &configuration) != 0) {
    if (errno == EIO || errno == EINVAL) return {};  // before Linux 6.4
    throw_errno(errno, fmt::format("read system call dispatch of thread {}", tid));
  }
  return {configuration.mode != 0};
}

RobustList robust_list(pid_t tid) {
  RobustList list;
  checked([&] { return ::syscall(SYS_get_robust_list, tid, &list.head, &list.size); },
          "read robust list of thread {}", tid);
  return list;
}

bool uses_debug_registers(pid_t tid) {
  long control = 0;
  checked(
      [&] { return request(PTRACE_PEEKUSR, tid, offsetof(::user, u_debugreg) + 7 * 8, &control); },
      "read debug registers of thread {}", tid);
  return (control & 0xff) != 0;
}

bool uses_io_ports(pid_t tid) {
  constexpr unsigned kIoPorts = 0x201;  // NT_386_IOPERM
  std::array<std::uint8_t, 8192> bitmap;
  ::iovec part{bitmap.data(), bitmap.size()};
  return request(PTRACE_GETREGSET, tid, kIoPorts, &part) == 0 && part.iov_len != 0;
}

std::vector<TlsSlot> tls_slots(pid_t tid) {
  constexpr unsigned kFirst = 12, kLast = 14;  // GDT_ENTRY_TLS_MIN, _MAX
  constexpr std::uint32_t kEmpty = 0x28;       // read_exec_only, seg_not_present
  std::vector<TlsSlot> used;
  for (unsigned index = kFirst; index <= kLast; ++index) {
    TlsSlot slot{}, empty{};
    std::memcpy(empty.data(), &index, sizeof index);
    std::memcpy(empty.data() + 12, &kEmpty, sizeof kEmpty);
    if (request(kGetThreadArea, tid, index, slot.data()) != 0) {
      if (errno == EIO) return {};
      throw_errno(errno, fmt::format("read segment {} of thread {}", index, tid));
    }
    if (slot != empty) used.push_back(slot);
  }
  return used;
}

void set_tls_slot(pid_t tid, const TlsSlot& slot) {
  unsigned index = 0;
  std::memcpy(&index, slot.data(), sizeof index);
  TlsSlot copy = slot;
  checked([&] { return request(kSetThreadArea, tid, index, copy.data()); },
          "set segment {} of thread {} (set_thread_area: CONFIG_IA32_EMULATION)", index, tid);
}

bool suspend_seccomp(pid_t tid, bool kill_with_us) {
  const long options = options_for(kill_with_us) | PTRACE_O_SUSPEND_SECCOMP;
  if (request(PTRACE_SETOPTIONS, tid, 0, reinterpret_cast<void*>(options)) == 0) return true;
  if (errno == EPERM || errno == EINVAL) return false;
  throw_errno(errno, fmt::format("suspend seccomp of thread {}", tid));
}

std::optional<SeccompFilter> seccomp_filter(pid_t tid, unsigned index) {
  constexpr std::size_t kInstructionBytes = 8;
  const long count = request(PTRACE_SECCOMP_GET_FILTER, tid, index, nullptr);
  if (count < 0 && errno == ENOENT) return std::nullopt;
  if (count < 0) throw_errno(errno, fmt::format("read seccomp filter {} of thread {}", index, tid));
  SeccompFilter filter;
  filter.instructions.resize(static_cast<std::size_t>(count) * kInstructionBytes);
  checked(
      [&] { return request(PTRACE_SECCOMP_GET_FILTER, tid, index, filter.instructions.data()); },
      "read seccomp filter {} of thread {}", index, tid);
  struct Metadata {
    std::uint64_t filter, flags;
  } metadata{index, 0};
  checked([&] { return request(kSeccompGetMetadata, tid, sizeof metadata, &metadata); },
          "read seccomp flags of thread {}", tid);
  constexpr std::uint64_t kLog = 2;  // SECCOMP_FILTER_FLAG_LOG
  filter.log = (metadata.flags & kLog) != 0;
  return filter;
}

}  // namespace icecore::sys
