// SPDX-License-Identifier: Apache-2.0
#pragma once

// A process that others may look at.
//
// For questions of the form "may you trace that one?", of which everything but what is asked for
// has to be known: it has one user and one group and no capability.
//
// Kernel facts relied on here:
//  * Who has the same ids in all three places may be traced, as far as capabilities and security
//    modules do not forbid it, also when it has ended and not been reaped.
//  * A change of ids makes a process untraceable (dumpable), and the memory that it has in common
//    with others: so it has memory of its own before it changes them, in which nothing is ours.
//    What counts of one that has ended is how it was at its end.

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <utility>

namespace icecore::sys {

class Witness {
 public:
  /// It has ended already, and is reaped with this object.  Nothing when we may not give it these
  /// ids.
  static std::optional<Witness> try_make(std::uint32_t user, std::uint32_t group);

  Witness(Witness&& other) noexcept : pid_(std::exchange(other.pid_, 0)) {}
  Witness& operator=(Witness&&) = delete;
  ~Witness();

  pid_t pid() const noexcept { return pid_; }

 private:
  explicit Witness(pid_t pid) : pid_(pid) {}

  pid_t pid_;  // 0 once moved from
};

}  // namespace icecore::sys
