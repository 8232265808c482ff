// SPDX-License-Identifier: Apache-2.0
#include "state/thread_settings.hpp"

#include <linux/prctl.h>
#include <sched.h>

#include <algorithm>
#include <string_view>

#include "sys/process.hpp"
#include "sys/ptrace.hpp"

namespace icecore {
namespace {

// Newer than Debian 12's headers, or of asm/prctl.h.
constexpr std::uint64_t kSetIoFlusher = 57;
constexpr std::uint64_t kGetIoFlusher = 58;
constexpr std::uint64_t kGetCpuid = 0x1011;
constexpr std::uint64_t kSetCpuid = 0x1012;

constexpr std::uint64_t kL1dFlush = 2;  // PR_SPEC_L1D_FLUSH
constexpr std::uint32_t kSpecificallySet = PR_SPEC_DISABLE | PR_SPEC_FORCE_DISABLE;

constexpr int kIoClassShift = 13;
constexpr int kIoClassRealTime = 1;

constexpr std::uint64_t kCapSysNice = std::uint64_t{1} << 23;
constexpr std::uint64_t kCapSysResource = std::uint64_t{1} << 24;

/// As PR_GET_SPECULATION_CTRL would say it; 0 where the thread has no setting of its own.
std::uint32_t store_bypass_of(const sys::Status& status) {
  const std::string_view text = status.text("Speculation_Store_Bypass");
  if (text == "thread force mitigated") return PR_SPEC_PRCTL | PR_SPEC_FORCE_DISABLE;
  if (text == "thread mitigated") return PR_SPEC_PRCTL | PR_SPEC_DISABLE;
  return 0;
}

std::uint32_t indirect_branch_of(const sys::Status& status) {
  const std::string_view text = status.text("SpeculationIndirectBranch");
  if (text == "conditional force disabled") return PR_SPEC_PRCTL | PR_SPEC_FORCE_DISABLE;
  if (text == "conditional disabled") return PR_SPEC_PRCTL | PR_SPEC_DISABLE;
  return 0;
}

sys::Scheduling scheduling_of(const state::ThreadT& thread) {
  return {.policy = thread.policy,
          .flags = thread.scheduling_flags,
          .nice = thread.nice,
          .priority = thread.priority,
          .runtime_ns = thread.runtime_ns,
          .deadline_ns = thread.deadline_ns,
          .period_ns = thread.period_ns,
          .utilization_min = thread.utilization_min,
          .utilization_max = thread.utilization_max};
}

void capture_scheduling(pid_t tid, state::ThreadT& state) {
  const sys::Scheduling scheduling = sys::scheduling(tid);
  state.policy = scheduling.policy;
  state.scheduling_flags = scheduling.flags;
  state.nice = scheduling.nice;
  state.priority = scheduling.priority;
  state.runtime_ns = scheduling.runtime_ns;
  state.deadline_ns = scheduling.deadline_ns;
  state.period_ns = scheduling.period_ns;
  state.utilization_min = scheduling.utilization_min;
  state.utilization_max = scheduling.utilization_max;
  state.affinity = sys::affinity(tid);
  state.io_priority = sys::io_priority(tid);
}

bool differs(const sys::Scheduling& now, const sys::Scheduling& wanted) {
  // Without a policy of its own the rest says how the machine deals with such threads.
  if (now.policy == SCHED_OTHER && wanted.policy == SCHED_OTHER && now.flags == wanted.flags &&
      now.utilization_min == wanted.utilization_min &&
      now.utilization_max == wanted.utilization_max && now.runtime_ns == wanted.runtime_ns)
    return now.nice != wanted.nice;
  return now != wanted;
}

void set_speculation(CallList& list, std::uint64_t kind, std::uint32_t state) {
  if ((state & PR_SPEC_PRCTL) == 0 || (state & kSpecificallySet) == 0) return;
  list.call("set speculation control", SYS_prctl,
            {PR_SET_SPECULATION_CTRL, kind, state & kSpecificallySet, 0, 0});
}

bool can_set_speculation(std::uint64_t kind, std::uint32_t wanted) {
  if ((wanted & kSpecificallySet) == 0) return true;
  const long ours = sys::speculation_control(kind);
  return ours == PR_SPEC_NOT_AFFECTED ||
         (ours > 0 && (static_cast<unsigned long>(ours) & PR_SPEC_PRCTL) != 0);
}

}  // namespace

void refuse_to_enter(const Tracee& thread, Refusals& refusals) {
  if (sys::syscall_user_dispatch(thread.tid()).enabled)
    refusals.add("thread {}: syscall user dispatch: cannot be kept", thread.tid());
  // 0x33 and 0x2b are the segments of every 64-bit program.
  const sys::Registers& registers = thread.registers();
  if (registers.cs != 0x33 || registers.ss != 0x2b)
    refusals.add("thread {}: runs 32-bit code (cs {:#x}): cannot be kept", thread.tid(),
                 registers.cs);
}

ThreadSettingQuestions::ThreadSettingQuestions(CallList& list)
    : words_(list.reserve((3 + kNodeWords) * 8)) {
  slack_ = list.call("read the timer slack", SYS_prctl, {PR_GET_TIMERSLACK});
  list.call("read the parent death signal", SYS_prctl, {PR_GET_PDEATHSIG, words_});
  list.call("read the time stamp counter setting", SYS_prctl, {PR_GET_TSC, words_ + 8});
  cpuid_ = list.try_call(SYS_arch_prctl, {kGetCpuid, 0});
  l1d_flush_ = list.try_call(SYS_prctl, {PR_GET_SPECULATION_CTRL, kL1dFlush, 0, 0, 0});
  io_flusher_ = list.try_call(SYS_prctl, {kGetIoFlusher, 0, 0, 0, 0});
  memory_policy_ =
      list.try_call(SYS_get_mempolicy, {words_ + 16, words_ + 24, kNodeWords * 64, 0, 0});
}

void ThreadSettingQuestions::answers(const CallList& list, Capture& capture, const Tracee& thread,
                                     const sys::Status& status, state::ThreadT& state) const {
  const pid_t tid = thread.tid();
  capture_scheduling(tid, state);
  state.timer_slack_ns = static_cast<std::uint64_t>(list.result(slack_));
  state.tsc_denied = list.value<std::int32_t>(words_ + 8) != PR_TSC_ENABLE;
  state.cpuid_denied = list.result(cpuid_) == 0;
  state.io_flusher = list.result(io_flusher_) == 1;
  state.store_bypass = store_bypass_of(status);
  state.indirect_branch = indirect_branch_of(status);
  if (const auto l1d = list.result(l1d_flush_); l1d > 0)
    state.l1d_flush = static_cast<std::uint32_t>(l1d);
  if (list.result(memory_policy_) == 0) {
    state.memory_policy = list.value<std::int32_t>(words_ + 16);
    for (std::size_t i = 0; i < kNodeWords && state.memory_policy != 0; ++i)
      state.memory_nodes.push_back(list.value<std::uint64_t>(words_ + 24 + 8 * i));
    while (!state.memory_nodes.empty() && state.memory_nodes.back() == 0)
      state.memory_nodes.pop_back();
  }
  Refusals& refusals = capture.refusals;
  if (const auto signal = list.value<std::int32_t>(words_); signal != 0)
    refusals.add(
        "thread {}: parent death signal {} (PR_SET_PDEATHSIG): a restored process has another "
        "parent, so this cannot be kept",
        tid, signal);
  if (sys::uses_debug_registers(tid))
    refusals.add("thread {}: hardware breakpoints are set: cannot be kept", tid);
  if (sys::uses_io_ports(tid))
    refusals.add("thread {}: may use I/O ports (ioperm): cannot be kept", tid);
  if (sys::has_core_cookie(tid))
    refusals.add("thread {}: has a core scheduling cookie (PR_SCHED_CORE): cannot be kept", tid);
}

std::size_t rebuild_thread_setting_bytes(const state::ThreadT& thread) {
  return kThreadSettingCalls * sizeof(RemoteCall) + thread.memory_nodes.size() * 8 + 16;
}

void rebuild_thread_settings(const state::ProcessT& process, const state::ThreadT& thread,
                             CallList& list) {
  // New threads have the slack of the leader.
  if (thread.timer_slack_ns != 0 && thread.timer_slack_ns != process.timer_slack_ns)
    list.call("set the timer slack", SYS_prctl, {PR_SET_TIMERSLACK, thread.timer_slack_ns});
  if (thread.io_flusher) list.call("become an I/O flusher", SYS_prctl, {kSetIoFlusher, 1, 0, 0, 0});
  if (thread.memory_policy != 0)  // of nodes one more than there are: the kernel takes one off
    list.call("set the memory policy", SYS_set_mempolicy,
              {static_cast<std::uint64_t>(thread.memory_policy),
               list.put(std::as_bytes(std::span{thread.memory_nodes})),
               thread.memory_nodes.size() * 64 + 1});
  set_speculation(list, PR_SPEC_STORE_BYPASS, thread.store_bypass);
  set_speculation(list, PR_SPEC_INDIRECT_BRANCH, thread.indirect_branch);
  set_speculation(list, kL1dFlush, thread.l1d_flush);
  if (thread.tsc_denied)
    list.call("deny the time stamp counter", SYS_prctl, {PR_SET_TSC, PR_TSC_SIGSEGV});
  if (thread.cpuid_denied) list.call("deny CPUID", SYS_arch_prctl, {kSetCpuid, 0});
}

void rebuild_scheduling(const state::ThreadT& thread, pid_t tid) {
  // Before the policy: SCHED_DEADLINE goes with none but the full affinity, and keeps it.
  if (sys::affinity(tid) != thread.affinity) sys::set_affinity(tid, thread.affinity);
  const sys::Scheduling wanted = scheduling_of(thread);
  if (differs(sys::scheduling(tid), wanted)) sys::set_scheduling(tid, wanted);
  if (sys::io_priority(tid) != thread.io_priority) sys::set_io_priority(tid, thread.io_priority);
}

void refuse_lacking_settings(const state::ProcessT& process, const sys::Status& own,
                             Refusals& refusals) {
  const std::uint64_t rights = own.number("CapEff", 16);
  for (const auto& thread : process.threads) {
    const sys::Scheduling wanted = scheduling_of(*thread);
    if (wanted.policy != SCHED_OTHER && !sys::may_schedule(wanted))
      refusals.add(
          "thread {}: scheduling policy {}, priority {}: not permitted here: CAP_SYS_NICE, or a "
          "cgroup with real-time bandwidth, is needed",
          thread->tid, wanted.policy, wanted.priority);
    else if (wanted.nice < 0 && (rights & kCapSysNice) == 0)
      refusals.add("thread {}: had a negative nice value: CAP_SYS_NICE is needed", thread->tid);
    if (thread->io_priority >> kIoClassShift == kIoClassRealTime && (rights & kCapSysNice) == 0)
      refusals.add("thread {}: real-time I/O priority: CAP_SYS_NICE is needed", thread->tid);
    if (thread->io_flusher && (rights & kCapSysResource) == 0)
      refusals.add("thread {}: is an I/O flusher: CAP_SYS_RESOURCE is needed", thread->tid);
    if (!can_set_speculation(PR_SPEC_STORE_BYPASS, thread->store_bypass) ||
        !can_set_speculation(PR_SPEC_INDIRECT_BRANCH, thread->indirect_branch))
      refusals.add("thread {}: speculation control: cannot be set on this machine", thread->tid);
    if (thread->cpuid_denied && !sys::can_deny_cpuid())
      refusals.add("thread {}: CPUID is denied: not possible on this machine", thread->tid);
  }
}

}  // namespace icecore
