// SPDX-License-Identifier: Apache-2.0
#pragma once

// System calls that are made should we die.
//
// For the moments in which something of another process is not as it was, and only we know how it
// was.  Who makes the calls is a child that shares our memory: SIGKILL ends a process, not others
// that use the same memory.
//
// Kernel facts relied on here:
//  * A child of clone3 with CLONE_VM but without CLONE_THREAD lives on when its maker is killed,
//  and
//    so does the memory that both have.
//  * Without CLONE_FILES it has descriptors of its own, equal to ours of that moment.  The end of a
//    pipe of which only we have the other end therefore tells that we are gone.
//  * A child with exit signal 0 is not seen by wait(2) without __WCLONE: whoever links us does not
//    meet it.

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "sys/fd.hpp"
#include "sys/mapping.hpp"

namespace icecore::sys {

/// One call of a testament.  What its arguments point to must live as long as the testament.
struct LastCall {
  long number;
  std::array<std::uint64_t, 5> arguments;
};

/// As long as this lives, `calls` are made, in order, when our process dies.
class Testament {
 public:
  /// `settled`: see settle().
  explicit Testament(std::vector<LastCall> calls, std::size_t settled = 0);
  Testament(const Testament&) = delete;
  Testament& operator=(const Testament&) = delete;

  /// Of the calls the first `count` are not to be made, as things are now.
  void settle(std::size_t count) noexcept;

  /// Revokes it.
  ~Testament();

 private:
  struct Orders {
    int wait = -1;
    int other_end = -1;
    const LastCall* calls = nullptr;
    std::size_t count = 0;
    std::size_t settled = 0;
  };
  static void execute(void* orders);

  std::vector<LastCall> calls_;
  Orders orders_;
  Mapping stack_;
  Fd wait_;  // held, so that revoking never meets a pipe without a reader
  Fd end_;
  pid_t executor_ = 0;
};

}  // namespace icecore::sys
