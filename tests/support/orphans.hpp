// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>

#include "support/conversation.hpp"

namespace test {

/// While this lives, a process whose parent dies becomes a child of the test.
class OrphanAdopter {
 public:
  OrphanAdopter();
  OrphanAdopter(const OrphanAdopter&) = delete;
  OrphanAdopter& operator=(const OrphanAdopter&) = delete;
  ~OrphanAdopter();

  /// Waits until a whole process answers "ping" through `conversation`, or no child of the test is
  /// left; ends and reaps what is there.  Empty, or what was there and did neither.
  /// The test has no other children at that time.
  std::string find_half_built(Conversation& conversation);

  /// Waits until the test has no child but this one, and reaps those that end: the helpers of an
  /// icecore that was killed have then done what they were for.
  void await_only_child(pid_t pid) const;
};

}  // namespace test
