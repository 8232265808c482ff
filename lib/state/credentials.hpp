// SPDX-License-Identifier: Apache-2.0
#pragma once

// Who a thread is and what it may do: user and group ids, capabilities, secure bits, no_new_privs.
// Each thread has its own; most processes have the same for all.
//
// A restore gives nothing that its caller does not have.

#include <vector>

#include "image/state_generated.h"
#include "state/capture.hpp"
#include "tracee/remote_syscalls.hpp"

namespace icecore {

class CredentialQuestions {
 public:
  /// Room that a CallList for these questions needs.
  static constexpr std::size_t kCalls = 3;
  static constexpr std::size_t kBytes = kCalls * 64;

  explicit CredentialQuestions(CallList& list);

  /// Adds to process.credentials what is not in it yet; returns the index.
  std::int32_t answers(const CallList& list, Capture& capture, const Tracee& thread,
                       const sys::Status& status, state::ProcessT& process) const;

 private:
  std::size_t secure_bits_, thread_keyring_, process_keyring_;
};

/// What a process that we have just started has of ours.
state::CredentialsT credentials_of_stub(pid_t pid);

/// Adds the calls with which a thread that has credentials `ours` takes on `wanted`: up to the last
/// of them it may do what we may, afterwards what `wanted` may.  `before_last` adds what needs the
/// former but must come late.
template <class Calls>
void rebuild_credentials(const state::CredentialsT& wanted, const state::CredentialsT& ours,
                         CallList& list, Calls before_last);
std::size_t rebuild_credential_calls(const state::CredentialsT& wanted);
std::size_t rebuild_credential_bytes(const state::CredentialsT& wanted);

/// Reasons why our own rights do not suffice, each capability by name.
void refuse_lacking_credentials(const state::ProcessT& process, const sys::Status& own,
                                Refusals& refusals);

// ---- the two halves of rebuild_credentials -----------------------------------------------------

void become(const state::CredentialsT& wanted, const state::CredentialsT& ours, CallList& list);
void give_up(const state::CredentialsT& wanted, const state::CredentialsT& ours, CallList& list);

template <class Calls>
void rebuild_credentials(const state::CredentialsT& wanted, const state::CredentialsT& ours,
                         CallList& list, Calls before_last) {
  become(wanted, ours, list);
  before_last();
  give_up(wanted, ours, list);
}

}  // namespace icecore
