// SPDX-License-Identifier: Apache-2.0
#include "tracee/remote_syscalls.hpp"

#include <signal.h>
#include <sys/mman.h>

#include <algorithm>

#include "icecore/error.hpp"
#include "sys/bytes.hpp"
#include "sys/call.hpp"
#include "sys/check.hpp"
#include "sys/page.hpp"
#include "tracee/batch.hpp"

namespace icecore {
namespace {

static_assert(kListBytes == kContextBytes);

/// What the lists take in the tracee.
sys::RemoteRange place_of(std::span<const RemoteSyscalls::Job> jobs) {
  std::uint64_t start = ~0ULL, end = 0;
  for (const RemoteSyscalls::Job& job : jobs) {
    start = std::min(start, job.list->remote());
    end = std::max(end, job.list->used_end());
  }
  return {start, end - start};
}

}  // namespace

// ---- CallList -------------------------------------------------------------------------------

CallList::CallList(std::uint64_t remote, std::size_t size_bytes, std::size_t max_calls)
    : remote_(remote), size_bytes_(size_bytes), max_calls_(max_calls) {
  ICECORE_CHECK(kContextBytes + max_calls * sizeof(RemoteCall) <= size_bytes);
}

std::uint64_t CallList::data_remote() const noexcept {
  return remote_ + kContextBytes + max_calls_ * sizeof(RemoteCall);
}

bool CallList::has_room(std::size_t calls, std::size_t bytes) const noexcept {
  const std::size_t data_room = size_bytes_ - (data_remote() - remote_);
  // 16 for the alignment of each piece; callers add few pieces at a time.
  return calls_.size() + calls <= max_calls_ && data_.size() + bytes + 64 <= data_room;
}

std::uint64_t CallList::reserve(std::size_t size_bytes) {
  ICECORE_CHECK(has_room(0, size_bytes));
  const std::size_t at = (data_.size() + 15) / 16 * 16;
  data_.resize(at + size_bytes);
  return data_remote() + at;
}

std::uint64_t CallList::put(std::span<const std::byte> bytes) {
  const std::uint64_t remote = reserve(bytes.size());
  sys::copy_bytes(bytes, data_.data() + (data_.size() - bytes.size()));
  return remote;
}

std::size_t CallList::try_call(long number, std::initializer_list<std::uint64_t> arguments) {
  ICECORE_CHECK(has_room(1, 0));
  RemoteCall call{.number = static_cast<std::uint64_t>(number), .arguments = {}, .result = 0};
  std::ranges::copy(arguments, call.arguments);
  calls_.push_back(call);
  what_.push_back(nullptr);
  return calls_.size() - 1;
}

std::size_t CallList::call(const char* what, long number,
                           std::initializer_list<std::uint64_t> arguments) {
  const std::size_t index = try_call(number, arguments);
  what_.back() = what;
  return index;
}

void CallList::touch(std::uint64_t address, std::uint64_t pages) {
  constexpr long kNoCall = -1;
  try_call(kNoCall, {address, pages});
}

void CallList::clear() noexcept {
  calls_.clear();
  what_.clear();
  data_.clear();
}

std::span<const std::byte> CallList::bytes(std::uint64_t remote, std::size_t size_bytes) const {
  const std::size_t at = remote - data_remote();
  ICECORE_CHECK(at <= data_.size() && size_bytes <= data_.size() - at);
  return std::span{data_}.subspan(at, size_bytes);
}

void CallList::throw_first_failure() const {
  for (std::size_t i = 0; i < calls_.size(); ++i)
    if (what_[i] != nullptr && is_error(calls_[i].result))
      sys::throw_errno(static_cast<int>(-calls_[i].result),
                       fmt::format("in the process: {} ({:#x}, {:#x})", what_[i],
                                   calls_[i].arguments[0], calls_[i].arguments[1]));
}

// ---- RemoteSyscalls -------------------------------------------------------------------------

RemoteSyscalls::RemoteSyscalls(Foothold& foothold, Tracee& leader, const sys::RemoteMemory& memory,
                               std::size_t size_bytes)
    : injected_into_(&leader),
      foothold_(&foothold),
      memory_(&memory),
      inner_pid_(leader.inner_tid()),
      code_(foothold.loop()),
      report_signal_(foothold.report_signal()) {
  const bool needs_code = code_ == 0;
  const std::uint64_t code_bytes = needs_code ? kPageSize : 0;
  size_bytes_ = (code_bytes + size_bytes + kPageSize - 1) / kPageSize * kPageSize;
  const auto call = [&](const char* what, long number,
                        std::initializer_list<std::uint64_t> arguments) {
    const std::int64_t result = foothold.call(leader, number, arguments);
    leader.put_back();
    if (is_error(result)) sys::throw_errno(static_cast<int>(-result), what);
    return static_cast<std::uint64_t>(result);
  };
  // Executable first, then writable: never both, which some processes are not allowed (MDWE).
  const int protection = needs_code ? PROT_READ | PROT_EXEC : PROT_READ | PROT_WRITE;
  remote_ = call("map memory in the process", SYS_mmap,
                 {0, size_bytes_, static_cast<std::uint64_t>(protection),
                  MAP_PRIVATE | MAP_ANONYMOUS, ~0ULL, 0});
  data_ = remote_ + code_bytes;
  if (!needs_code) return;
  code_ = remote_;
  call("protect memory in the process", SYS_mprotect,
       {data_, size_bytes_ - code_bytes, PROT_READ | PROT_WRITE});
  memory.write(code_, loop_code());
}

RemoteSyscalls::RemoteSyscalls(const sys::Mapping& area, std::uint64_t remote, pid_t inner_pid)
    : inner_pid_(inner_pid),
      local_(area.bytes()),
      remote_(remote),
      size_bytes_(area.size()),
      code_(remote),
      data_(remote + kPageSize),
      report_signal_(SIGURG) {
  sys::copy_bytes(loop_code(), local_.data());
}

RemoteSyscalls::~RemoteSyscalls() {
  if (injected_into_ == nullptr) return;
  try {
    foothold_->call(*injected_into_, SYS_munmap, {remote_, size_bytes_});
    injected_into_->put_back();
  } catch (const Error&) {
    // The thread has died, and its memory with it.
  }
}

std::uint64_t RemoteSyscalls::syscall_instruction() const noexcept {
  constexpr std::array kSyscall{std::byte{0x0f}, std::byte{0x05}};
  const auto code = loop_code();
  const auto at = std::search(code.begin(), code.end(), kSyscall.begin(), kSyscall.end());
  return code_ + static_cast<std::uint64_t>(at - code.begin());
}

void RemoteSyscalls::put_lists(std::span<const Job> jobs, const sys::RemoteRange& place,
                               std::span<std::byte> view) const {
  for (const Job& job : jobs) {
    const CallList& list = *job.list;
    BatchContext context = recovery_context(*job.thread, inner_pid_, report_signal_);
    context.first_call = list.remote_ + kContextBytes;
    context.calls = list.calls_.size();
    const auto put = [&](std::uint64_t at, std::span<const std::byte> bytes) {
      sys::copy_bytes(bytes, view.subspan(at - place.address, bytes.size()).data());
    };
    put(list.remote_, std::as_bytes(std::span{&context, 1}));
    put(list.remote_ + kContextBytes, std::as_bytes(std::span{list.calls_}));
    put(list.data_remote(), list.data_);
  }
}

void RemoteSyscalls::take_lists(std::span<const Job> jobs, const sys::RemoteRange& place,
                                std::span<const std::byte> view) {
  for (const Job& job : jobs) {
    CallList& list = *job.list;
    const auto take = [&](std::uint64_t at, std::span<std::byte> bytes) {
      sys::copy_bytes(view.subspan(at - place.address, bytes.size()), bytes.data());
    };
    take(list.remote_ + kContextBytes, std::as_writable_bytes(std::span{list.calls_}));
    take(list.data_remote(), list.data_);
  }
}

void RemoteSyscalls::start(const Job& job) const {
  Tracee& thread = *job.thread;
  sys::Registers registers = thread.registers();
  registers.rip = code_;
  if (job.make_room_for_tiles)
    registers.rip += static_cast<std::uint64_t>(icecore_batch_tiles - icecore_batch_begin);
  registers.r12 = job.list->remote_;
  registers.rax = 0;
  registers.orig_rax = ~0ULL;
  thread.disturb(registers, ~only(report_signal_));
  if (!sys::resume(thread.tid())) throw_gone(thread);
}

void RemoteSyscalls::run(std::span<const Job> jobs) {
  const sys::RemoteRange place = place_of(jobs);
  // Without a view of their memory, all lists, which lie side by side, go over in one piece.
  std::vector<std::byte> copy(local_.empty() ? place.size_bytes : 0);
  const std::span<std::byte> view =
      local_.empty() ? std::span{copy} : local_.subspan(place.address - remote_, place.size_bytes);
  put_lists(jobs, place, view);
  if (local_.empty()) memory_->write(place.address, view);
  for (const Job& job : jobs) start(job);
  for (const Job& job : jobs) wait_for_report(*job.thread, inner_pid_, report_signal_, code_);
  if (local_.empty()) memory_->read(place.address, view);
  take_lists(jobs, place, view);
  for (const Job& job : jobs) job.list->throw_first_failure();
}

// ---- one call -------------------------------------------------------------------------------

// By PTRACE_SYSCALL and not by single steps: those end with a SIGTRAP, which the kernel forces on
// the thread, and that resets the action of a SIGTRAP that is ignored or blocked.
std::int64_t single_syscall(Tracee& thread, std::uint64_t syscall_instruction, long number,
                            std::initializer_list<std::uint64_t> arguments) {
  const sys::Registers registers = entering_kernel(thread, syscall_instruction, number, arguments);
  thread.disturb(registers, ~sys::SignalMask{0});

  for (int stops_left = 2; stops_left > 0;) {
    if (!sys::resume_to_syscall(thread.tid())) throw_gone(thread);
    const sys::Stop stop = sys::wait_stop(thread.tid());
    if (stop.kind == sys::Stop::Kind::exited) throw_gone(thread);
    if (stop.kind == sys::Stop::Kind::syscall) --stops_left;
    if (stop.kind == sys::Stop::Kind::signal)
      thread.suspend_signal(sys::stop_siginfo(thread.tid()));
  }
  return static_cast<std::int64_t>(sys::registers(thread.tid()).rax);
}

void stop_before_user_code(Tracee& thread) {
  sys::interrupt(thread.tid());
  for (;;) {
    if (!sys::resume(thread.tid())) throw_gone(thread);
    const sys::Stop stop = sys::wait_stop(thread.tid());
    if (stop.kind == sys::Stop::Kind::exited) throw_gone(thread);
    if (stop.kind == sys::Stop::Kind::trap) return;
    if (stop.kind == sys::Stop::Kind::signal)
      thread.suspend_signal(sys::stop_siginfo(thread.tid()));
  }
}

}  // namespace icecore
