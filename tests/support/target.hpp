// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>
#include <string>

#include "support/conversation.hpp"
#include "support/process.hpp"

namespace test {

/// Thrown when a target says that the machine has not what its state is made of.
struct NotHere : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A program of tests/targets, or any other that talks as these do, in its state and waiting for
/// questions.  The destructor kills and reaps it.
class Target {
 public:
  /// `name` is a program of tests/targets.  Throws NotHere when it skips.
  explicit Target(const std::string& name, const Arguments& arguments = {});

  /// Any program, as command and arguments.
  static Target of_command(const Arguments& command);

  /// Says in what it throws how the target ended, when it has.
  std::string ask(std::string_view question);
  Conversation& conversation() { return conversation_; }
  Process& process() { return process_; }

  pid_t pid() const { return process_.pid(); }
  bool alive() const { return !process_.ended(); }

  /// Whether it runs: answers "ping".
  bool running() { return alive() && ask("ping") == "pong"; }

 private:
  explicit Target(const Arguments& command);

  Conversation conversation_;
  Process process_;
};

/// The path of a program of tests/targets.
std::string target_path(const std::string& name);

}  // namespace test
