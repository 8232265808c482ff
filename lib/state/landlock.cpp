// SPDX-License-Identifier: Apache-2.0
#include "state/landlock.hpp"

#include <linux/capability.h>
#include <sys/syscall.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "sys/landlock.hpp"
#include "sys/process.hpp"
#include "sys/procfs.hpp"

namespace icecore {
namespace {

using Answer = LandlockQuestion::Answer;

bool may_trace_everybody(const sys::Status& status) {
  return (status.number("CapEff", 16) >> CAP_SYS_PTRACE & 1) != 0;
}

/// Those that a thread has in a question of the right to trace: the real ones.
std::pair<std::uint32_t, std::uint32_t> ids_of(const sys::Status& status) {
  const auto real = [&](std::string_view field) {
    return static_cast<std::uint32_t>(status.numbers(field).at(0));
  };
  return {real("Uid"), real("Gid")};
}

/// Other security modules answer in the same way, and treat those alike whom they call alike.
std::string other_explanation(pid_t pid) {
  constexpr std::string_view kEnds{"\n\0", 2};
  const auto theirs = sys::readable_text(fmt::format("/proc/{}/attr/current", pid));
  if (theirs == sys::readable_text("/proc/self/attr/current")) return {};
  return " (or the security module that labels it '" +
         theirs.substr(0, theirs.find_first_of(kEnds)) + "' hides whether it does)";
}

}  // namespace

LandlockWitnesses::LandlockWitnesses(const Capture& capture) : ids_(capture.statuses.size()) {
  we_have_rules_ = sys::lives_under_landlock();
  Made wanted;
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    if (may_trace_everybody(capture.statuses[i])) continue;
    ids_[i] = ids_of(capture.statuses[i]);
    wanted.try_emplace(*ids_[i]);
  }
  if (wanted.empty() || !sys::may_have_landlock()) return;
  const sys::SignalsBlocked blocked;  // the thread inherits the mask
  being_made_ = std::async(std::launch::async | std::launch::deferred, make, std::move(wanted));
}

LandlockWitnesses::Made LandlockWitnesses::make(Made wanted) {
  for (auto& [ids, witness] : wanted)
    if (auto made = sys::Witness::try_make(ids.first, ids.second))
      witness.emplace(std::move(*made));
  return wanted;
}

pid_t LandlockWitnesses::of_thread(std::size_t index) {
  if (!ids_[index] || !sys::may_have_landlock()) return sys::current_thread();
  if (being_made_.valid()) made_ = being_made_.get();
  const auto& witness = made_.at(*ids_[index]);
  return witness ? witness->pid() : 0;
}

LandlockQuestion::LandlockQuestion(CallList& list, pid_t witness) {
  if (witness == 0) return;
  const std::uint64_t head = list.reserve(8), size = list.reserve(8);
  call_ = list.try_call(SYS_get_robust_list, {static_cast<std::uint64_t>(witness), head, size});
}

Answer LandlockQuestion::answer(const CallList& list) const {
  if (!call_) return Answer::unknown;
  constexpr std::int64_t kNotPermitted = -1;
  switch (list.result(*call_)) {
    case 0:
      return Answer::our_rules;
    case kNotPermitted:
      return Answer::other_rules;
    default:
      return Answer::unknown;
  }
}

void capture_landlock(Capture& capture, std::span<const Answer> answers,
                      LandlockWitnesses& witnesses, state::ProcessT& process) {
  process.landlock = witnesses.we_have_rules();
  const auto count = [&](Answer wanted) { return std::ranges::count(answers, wanted); };
  if (count(Answer::unknown) != 0)
    capture.refusals.add(
        "process {}: may live under Landlock rules, which could not be kept: to ask icecore needs "
        "CAP_SETUID and CAP_SETGID",
        capture.pid);
  const auto restricted = count(Answer::other_rules);
  if (restricted == 0) return;
  const std::string explanation = other_explanation(capture.pid);
  if (restricted == std::ssize(answers))
    return capture.refusals.add("process {}: lives under Landlock rules{}: cannot be kept",
                                capture.pid, explanation);
  for (std::size_t i = 0; i < answers.size(); ++i)
    if (answers[i] == Answer::other_rules)
      capture.refusals.add("thread {}: lives under Landlock rules{}: cannot be kept",
                           capture.process.threads()[i].tid(), explanation);
}

void refuse_lacking_landlock(const state::ProcessT& process, Refusals& refusals) {
  if (process.landlock && !sys::lives_under_landlock().get())
    refusals.add(
        "Landlock: the process lived under rules, as icecore did; icecore lives under none here: "
        "start it under those rules");
}

}  // namespace icecore
