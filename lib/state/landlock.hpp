// SPDX-License-Identifier: Apache-2.0
#pragma once

// Landlock rules, of each thread: cannot be read, so they cannot be kept.
//
// Each thread is asked from inside whether it might trace somebody who lives under the rules that
// icecore itself has, which are none as a rule.  Who may has the same; who may not has others, and
// is refused.  That changes nothing in the process, and costs one call of a list.

#include <future>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "image/state_generated.h"
#include "state/capture.hpp"
#include "sys/witness.hpp"
#include "tracee/remote_syscalls.hpp"

namespace icecore {

/// Whom the threads are asked about: somebody whom nothing but Landlock can keep each from tracing.
class LandlockWitnesses {
 public:
  /// To be made by the tracer.  What takes long is begun, for another CPU to do.
  explicit LandlockWitnesses(const Capture& capture);

  /// For the thread at `index`; 0 when there can be nobody.  Waits.
  pid_t of_thread(std::size_t index);

  /// Whether icecore itself lives under rules.  Waits.
  bool we_have_rules() { return we_have_rules_.get(); }

 private:
  using Ids = std::pair<std::uint32_t, std::uint32_t>;  // user, group
  using Made = std::map<Ids, std::optional<sys::Witness>>;
  static Made make(Made wanted);

  std::vector<std::optional<Ids>> ids_;  // of each thread that may not look at us
  std::future<Made> being_made_;
  Made made_;
  std::future<bool> we_have_rules_;
};

/// The question to one thread.
class LandlockQuestion {
 public:
  static constexpr std::size_t kCalls = 1;
  static constexpr std::size_t kBytes = kCalls * sizeof(RemoteCall) + 16;

  /// `witness` 0: there is nobody.
  LandlockQuestion(CallList& list, pid_t witness);

  enum class Answer { our_rules, other_rules, unknown };
  Answer answer(const CallList& list) const;

 private:
  std::optional<std::size_t> call_;
};

/// Refuses threads under other rules than ours; `answers` in the order of the threads.
void capture_landlock(Capture& capture, std::span<const LandlockQuestion::Answer> answers,
                      LandlockWitnesses& witnesses, state::ProcessT& process);

/// Refuses a process that would be rid of its rules here.
void refuse_lacking_landlock(const state::ProcessT& process, Refusals& refusals);

}  // namespace icecore
