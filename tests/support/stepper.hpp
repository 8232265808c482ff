// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <cstddef>
#include <deque>
#include <set>
#include <string>

#include "support/process.hpp"

namespace test {

/// A program that runs system call by system call, all its threads counted together.  With it a
/// test does something at step 1, 2, 3 … of a program, instead of at random moments.
///
/// Uses ptrace and SIGCHLD: one at a time, on the main thread of the test.
class Stepper {
 public:
  Stepper(const Arguments& arguments, Streams streams);
  Stepper(const Stepper&) = delete;
  Stepper& operator=(const Stepper&) = delete;
  ~Stepper();

  /// Lets it make `count` more system calls.  False when it ended before.
  bool step(std::size_t count);

  /// Lets it run to its end; the exit status as a shell has it.
  int finish();

  void kill();

  pid_t pid() const { return pid_; }
  std::size_t steps() const { return steps_; }

  /// The last system calls that it made, by number: for the message of a failed test.
  std::string last_calls() const;

 private:
  struct Event;
  Event next_event();
  bool advance();
  void note_call(pid_t thread);
  void go_on(pid_t thread, int signal);

  sigset_t mask_before_;
  pid_t pid_ = 0;
  bool ended_ = false;
  int status_ = 0;
  std::size_t steps_ = 0;
  std::set<pid_t> inside_call_;
  std::deque<std::string> last_calls_;
};

}  // namespace test
