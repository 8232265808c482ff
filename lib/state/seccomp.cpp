// SPDX-License-Identifier: Apache-2.0
#include "state/seccomp.hpp"

#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include <algorithm>
#include <cstring>

#include "sys/process.hpp"
#include "sys/procfs.hpp"
#include "sys/ptrace.hpp"

namespace icecore {
namespace {

constexpr std::uint64_t kStrict = 1;

std::uint64_t mode_of(const sys::Status& status) { return status.number("Seccomp"); }

/// A filter that hands calls to a supervisor, with whom the process would have to be restored.
bool asks_a_supervisor(const std::vector<std::uint8_t>& instructions) {
  for (std::size_t at = 0; at + sizeof(::sock_filter) <= instructions.size();
       at += sizeof(::sock_filter)) {
    ::sock_filter instruction;
    std::memcpy(&instruction, instructions.data() + at, sizeof instruction);
    if (instruction.code == (BPF_RET | BPF_K) &&
        (instruction.k & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_USER_NOTIF)
      return true;
  }
  return false;
}

state::SeccompT read_seccomp(Capture& capture, const Tracee& thread, const sys::Status& status) {
  state::SeccompT seccomp;
  seccomp.strict = mode_of(status) == kStrict;
  if (seccomp.strict) return seccomp;
  for (unsigned index = 0; auto filter = sys::seccomp_filter(thread.tid(), index); ++index) {
    if (asks_a_supervisor(filter->instructions))
      capture.refusals.add(
          "thread {}: a seccomp filter asks a supervisor (SECCOMP_RET_USER_NOTIF): cannot be kept",
          thread.tid());
    auto kept = std::make_unique<state::SeccompFilterT>();
    kept->instructions = std::move(filter->instructions);
    kept->log = filter->log;
    seccomp.filters.push_back(std::move(kept));
  }
  return seccomp;
}

bool same(const state::SeccompT& a, const state::SeccompT& b) {
  return a.strict == b.strict &&
         std::ranges::equal(a.filters, b.filters, [](const auto& x, const auto& y) {
           return x->instructions == y->instructions && x->log == y->log;
         });
}

}  // namespace

void suspend_seccomp(const Tracee& thread, const sys::Status& status, Refusals& refusals) {
  if (mode_of(status) == 0 || sys::suspend_seccomp(thread.tid(), false)) return;
  refusals.add(
      "thread {}: seccomp is on, and icecore may not look behind it: it needs CAP_SYS_ADMIN, and "
      "no seccomp of its own (containers: seccomp=unconfined)",
      thread.tid());
}

std::int32_t capture_seccomp(Capture& capture, const Tracee& thread, const sys::Status& status,
                             state::ProcessT& process) {
  if (mode_of(status) == 0) return -1;
  auto seccomp = std::make_unique<state::SeccompT>(read_seccomp(capture, thread, status));
  const auto known = std::ranges::find_if(
      process.seccomp, [&](const auto& other) { return same(*other, *seccomp); });
  const auto index = known - process.seccomp.begin();
  if (known == process.seccomp.end()) process.seccomp.push_back(std::move(seccomp));
  return static_cast<std::int32_t>(index);
}

bool uses_seccomp(const state::ProcessT& process) { return !process.seccomp.empty(); }

void suspend_seccomp_of_stub(pid_t pid) {
  if (!sys::suspend_seccomp(pid, true))
    throw Error{Errc::permission, "the process had seccomp filters: CAP_SYS_ADMIN is needed"};
}

std::size_t rebuild_seccomp_calls(const state::SeccompT& seccomp) {
  return seccomp.strict ? 1 : seccomp.filters.size();
}

std::size_t rebuild_seccomp_bytes(const state::SeccompFilterT& filter) {
  return filter.instructions.size() + 64;
}

std::size_t rebuild_seccomp_bytes(const state::SeccompT& seccomp) {
  std::size_t bytes = rebuild_seccomp_calls(seccomp) * sizeof(RemoteCall);
  for (const auto& filter : seccomp.filters) bytes += rebuild_seccomp_bytes(*filter);
  return bytes;
}

// Threads that share their filters can later be given more with SECCOMP_FILTER_FLAG_TSYNC; threads
// that have the same ones each for itself cannot.
std::int32_t common_seccomp(const state::ProcessT& process) {
  const std::int32_t first = process.threads.front()->seccomp;
  if (first < 0 || process.seccomp[static_cast<std::size_t>(first)]->strict) return -1;
  const bool common =
      std::ranges::all_of(process.threads, [&](const auto& t) { return t->seccomp == first; });
  return common ? first : -1;
}

void rebuild_seccomp_filter(const state::SeccompFilterT& filter, bool for_all, CallList& list) {
  const std::uint64_t instructions = list.put(std::as_bytes(std::span{filter.instructions}));
  const struct {
    std::uint64_t count;
    std::uint64_t instructions;
  } program{filter.instructions.size() / sizeof(::sock_filter), instructions};
  // Speculation control is a setting of its own, and as it was.
  const std::uint64_t flags = SECCOMP_FILTER_FLAG_SPEC_ALLOW |
                              (filter.log ? SECCOMP_FILTER_FLAG_LOG : 0) |
                              (for_all ? SECCOMP_FILTER_FLAG_TSYNC : 0);
  list.call("install a seccomp filter", SYS_seccomp,
            {SECCOMP_SET_MODE_FILTER, flags, list.put_value(program)});
}

void rebuild_seccomp(const state::SeccompT& seccomp, CallList& list) {
  if (seccomp.strict)
    list.call("enter strict seccomp", SYS_prctl, {PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0});
  for (const auto& filter : seccomp.filters) rebuild_seccomp_filter(*filter, false, list);
}

void refuse_lacking_seccomp(const state::ProcessT& process, const sys::Status& own,
                            Refusals& refusals) {
  if (!uses_seccomp(process)) return;
  if ((own.number("CapEff", 16) >> CAP_SYS_ADMIN & 1) != 0 && mode_of(own) == 0) return;
  refusals.add(
      "seccomp: the process had it: to put it back icecore needs CAP_SYS_ADMIN, and no seccomp of "
      "its own (containers: seccomp=unconfined)");
}

}  // namespace icecore
