// SPDX-License-Identifier: Apache-2.0
#include "state/threads.hpp"

#include <linux/sched.h>
#include <signal.h>
#include <sys/prctl.h>

#include <algorithm>
#include <cstring>

namespace icecore {
namespace {

#ifndef PR_GET_TID_ADDRESS
constexpr int PR_GET_TID_ADDRESS = 40;
#endif

constexpr std::size_t kXsaveHeader = 512;  // xstate_bv is its first word
constexpr int kTileDataComponent = 18;     // XSAVE component of AMX tiles

struct AlternateStack {
  std::uint64_t address;
  std::int32_t flags;
  std::int32_t pad;
  std::uint64_t size;
};
static_assert(sizeof(AlternateStack) == sizeof(stack_t));

template <class Value>
std::vector<std::uint8_t> as_bytes(const Value& value) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(&value);
  return {bytes, bytes + sizeof value};
}

/// The XSAVE area without the zeros behind its last used component.
std::vector<std::uint8_t> trimmed(std::span<const std::uint8_t> xstate) {
  constexpr std::size_t kLeast = 576;  // legacy area and header
  const auto last =
      std::find_if(xstate.rbegin(), xstate.rend(), [](auto byte) { return byte != 0; });
  const auto used = static_cast<std::size_t>(xstate.rend() - last);
  const std::size_t size = std::min(xstate.size(), std::max(kLeast, (used + 63) / 64 * 64));
  return {xstate.begin(), xstate.begin() + static_cast<std::ptrdiff_t>(size)};
}

std::uint64_t xsave_components(std::span<const std::uint8_t> xstate) {
  std::uint64_t components = 0;
  std::memcpy(&components, xstate.data() + kXsaveHeader, sizeof components);
  return components;
}

void capture_pending(const Tracee& thread, const sys::Status& status, state::ThreadT& state) {
  const QueuedSignals queued = queued_signals(thread.tid(), false, status.number("SigPnd", 16));
  std::vector<siginfo_t> pending;
  // SIGSTOP cannot be held back as others can: the process counts as stopped.
  if (const auto& suspended = thread.suspended_signal();
      suspended && suspended->si_signo != SIGSTOP)
    pending.push_back(*suspended);
  pending.insert(pending.end(), queued.infos.begin(), queued.infos.end());
  state.pending = pack_siginfos(pending);
  state.pending_bare = queued.bare;
}

void refuse_segments(Capture& capture, const Tracee& thread) {
  // Segments of its own in the GDT or LDT; 0x2b is that of every program.
  const sys::Registers& r = thread.registers();
  const auto is_own = [](std::uint64_t selector) { return selector > 3 && selector != 0x2b; };
  if (is_own(r.ds) || is_own(r.es) || is_own(r.fs) || is_own(r.gs))
    capture.refusals.add("thread {}: uses segments of its own (set_thread_area): cannot be kept",
                         thread.tid());
}

}  // namespace

ThreadQuestions::ThreadQuestions(CallList& list)
    : alternate_stack_(list.reserve(sizeof(AlternateStack))),
      tid_address_(list.reserve(8)),
      name_(list.reserve(kNameBytes)) {
  list.call("read the alternate signal stack", SYS_sigaltstack, {0, alternate_stack_});
  list.call("read the name", SYS_prctl, {PR_GET_NAME, name_});
  list.call("read the clear_child_tid address", SYS_prctl, {PR_GET_TID_ADDRESS, tid_address_});
}

std::unique_ptr<state::ThreadT> capture_thread(Capture& capture, const Tracee& thread,
                                               const ThreadQuestions& questions,
                                               const CallList& answers, const sys::Status& status,
                                               const SleepObserver& sleeps) {
  const pid_t tid = thread.tid();
  auto state = std::make_unique<state::ThreadT>();
  state->tid = thread.inner_tid();
  const auto name = answers.bytes(questions.name_, ThreadQuestions::kNameBytes);
  state->name = reinterpret_cast<const char*>(name.data());

  const sys::Rseq rseq = sys::rseq(tid);
  sys::Registers registers = thread.registers();
  if (in_syscall(registers)) {
    const long number = sleeps.call_number(thread);
    if (number < 0)
      capture.refusals.add("thread {}: fell asleep at the moment of the freeze: try again", tid);
    registers.orig_rax = static_cast<unsigned long long>(number);
  }
  state->registers = as_bytes(registers);
  sys::XstateBuffer xstate;
  state->xstate = trimmed(sys::xstate(tid, xstate));
  state->signal_mask = thread.signal_mask();
  capture_pending(thread, status, *state);
  if (const auto left = sleeps.time_left(thread)) state->timeout_left_ns = left->count();

  const auto stack = answers.value<AlternateStack>(questions.alternate_stack_);
  state->alt_stack_address = stack.address;
  state->alt_stack_size = stack.size;
  state->alt_stack_flags = stack.flags & ~SS_ONSTACK;
  state->clear_child_tid = answers.value<std::uint64_t>(questions.tid_address_);
  state->rseq_address = rseq.address;
  state->rseq_size = rseq.size;
  state->rseq_signature = rseq.signature;
  const sys::RobustList robust = sys::robust_list(tid);
  state->robust_list = robust.head;
  state->robust_list_size = robust.size;

  refuse_segments(capture, thread);
  for (const sys::TlsSlot& slot : sys::tls_slots(tid))
    state->tls_slots.insert(state->tls_slots.end(), slot.begin(), slot.end());
  return state;
}

void rebuild_clone(const state::ThreadT& thread, CallList& list) {
  const std::uint64_t tid = list.put_value(thread.tid);
  struct ::clone_args arguments {};
  arguments.flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                    CLONE_SYSVSEM | CLONE_PTRACE;
  arguments.set_tid = tid;
  arguments.set_tid_size = 1;
  list.call("make a thread", SYS_clone3, {list.put_value(arguments), sizeof arguments});
}

std::size_t rebuild_thread_call_count(const state::ThreadT& thread) {
  return 5 + thread.pending.size() / sizeof(siginfo_t);
}

std::size_t rebuild_thread_bytes(const state::ThreadT& thread) {
  // Calls, alternate stack and name, siginfos with their alignment.
  return rebuild_thread_call_count(thread) * sizeof(RemoteCall) + 192 + thread.pending.size();
}

void rebuild_thread_calls(const state::ThreadT& thread, pid_t pid, CallList& list) {
  const AlternateStack stack{.address = thread.alt_stack_address,
                             .flags = thread.alt_stack_flags,
                             .pad = 0,
                             .size = thread.alt_stack_size};
  list.call("set the alternate signal stack", SYS_sigaltstack, {list.put_value(stack), 0});
  list.call("name a thread", SYS_prctl, {PR_SET_NAME, list.put_string(thread.name)});
  list.call("set clear_child_tid", SYS_set_tid_address, {thread.clear_child_tid});
  if (thread.robust_list != 0)
    list.call("set the robust list", SYS_set_robust_list,
              {thread.robust_list, thread.robust_list_size});
  if (thread.rseq_address != 0)
    list.call("register rseq", SYS_rseq,
              {thread.rseq_address, thread.rseq_size, 0, thread.rseq_signature});
  rebuild_pending_signals(thread.pending, true, pid, thread.tid, list);
}

sys::Registers registers_of(const state::ThreadT& thread) {
  sys::Registers registers;
  static_assert(sizeof registers == 216);
  std::memcpy(&registers, thread.registers.data(), sizeof registers);
  return registers;
}

bool uses_tile_data(const state::ThreadT& thread) {
  return (xsave_components(thread.xstate) >> kTileDataComponent & 1) != 0;
}

void rebuild_registers(const state::ThreadT& thread, const sys::Registers& registers, pid_t tid,
                       std::size_t xstate_bytes) {
  std::vector<std::uint8_t> xstate = thread.xstate;
  xstate.resize(xstate_bytes);
  sys::set_xstate(tid, xstate);
  for (std::size_t at = 0; at < thread.tls_slots.size(); at += sizeof(sys::TlsSlot)) {
    sys::TlsSlot slot;
    std::memcpy(slot.data(), thread.tls_slots.data() + at, sizeof slot);
    sys::set_tls_slot(tid, slot);
  }
  sys::set_registers(tid, registers);
  sys::set_signal_mask(tid, thread.signal_mask);
}

}  // namespace icecore
