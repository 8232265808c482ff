// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "support/descriptor.hpp"
#include "support/patience.hpp"

namespace test {

using Arguments = std::vector<std::string>;

/// Descriptors of the caller that a new process gets as 0, 1 and 2.
struct Streams {
  int in = 0;
  int out = 1;
  int error = 2;
};

/// A child process.  The destructor kills and reaps it.
class Process {
 public:
  /// Runs arguments[0], found in PATH, with all signals unblocked and at their defaults.
  static Process start(const Arguments& arguments, Streams streams);

  Process(Process&& other) noexcept;
  Process& operator=(Process&&) = delete;
  ~Process();

  pid_t pid() const { return pid_; }

  /// Readable once the process has ended.
  int pidfd() const { return pidfd_.get(); }

  bool ended(std::chrono::milliseconds patience = std::chrono::milliseconds{0}) const;
  void signal(int number) const;

  /// The status as wait(2) gives it.  Throws when the process does not end in time.
  int wait(std::chrono::milliseconds patience = kPatience);

  /// As wait(), for a process that icecore killed: where the library did so in this process, it may
  /// have reaped it too.
  void await_end();

 private:
  explicit Process(pid_t pid);

  pid_t pid_;
  Descriptor pidfd_;
  std::optional<int> status_;
};

/// The exit status as a shell has it: 128 + N after signal N.
int exit_status(int wait_status);

/// The children of any thread of process `pid`.
std::vector<pid_t> children_of(pid_t pid);

}  // namespace test
