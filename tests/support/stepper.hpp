// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <cstddef>
#include <deque>
#include <optional>
#include <set>
#include <string>

#include "support/process.hpp"

namespace test {

/// A program that runs system call by system call, all its threads counted together; calls that
/// only wait for a time do not count.  With it a test does something at step 1, 2, 3 … of a
/// program, instead of at random moments.
///
/// Uses ptrace and SIGCHLD: one at a time, on the main thread of the test.
class Stepper {
 public:
  /// `counted`: the calls that are steps; empty: all.
  Stepper(const Arguments& arguments, Streams streams, std::set<long> counted = {});
  Stepper(const Stepper&) = delete;
  Stepper& operator=(const Stepper&) = delete;
  ~Stepper();

  /// Lets it make `count` more system calls.  False when it ended before.
  bool step(std::size_t count);

  /// Lets it run until it is about to make call number `step` of all, which it does not make before
  /// it is told to go on.  False when it ended before.
  bool stop_before(std::size_t step);

  /// Lets it run to its end, and helpers that share its memory to theirs; the exit status as a
  /// shell has it.
  int finish();

  void kill();

  pid_t pid() const { return pid_; }
  std::size_t steps() const { return steps_; }

  /// The last system calls that it made, by number: for the message of a failed test.
  std::string last_calls() const;

 private:
  struct Event;
  std::optional<Event> next_event();
  bool advance();
  bool note_call(pid_t thread);
  void go_on(pid_t thread, int signal);

  std::set<long> counted_;
  sigset_t mask_before_;
  pid_t pid_ = 0;
  bool ended_ = false;
  int status_ = 0;
  std::size_t steps_ = 0;
  std::size_t stop_before_ = 0;
  pid_t held_ = 0;  // stands at the entry of its call
  std::set<pid_t> inside_call_;
  std::deque<std::string> last_calls_;
};

/// How many system calls `command`, an icecore, makes until it has come to a stage (see
/// lib/fault_injection.hpp).
std::size_t steps_until(const std::string& stage, const Arguments& command, Streams streams,
                        const std::set<long>& counted = {});

}  // namespace test
