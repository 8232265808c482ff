// SPDX-License-Identifier: Apache-2.0
#include "support/target.hpp"

namespace test {
namespace {

Arguments command_of(const std::string& name, Arguments arguments) {
  arguments.insert(arguments.begin(), target_path(name));
  return arguments;
}

}  // namespace

std::string target_path(const std::string& name) {
  return std::string{ICECORE_TARGET_DIR} + "/" + name;
}

Target::Target(const std::string& name, const Arguments& arguments)
    : Target(command_of(name, arguments)) {}

Target Target::of_command(const Arguments& command) { return Target{command}; }

Target::Target(const Arguments& command)
    : conversation_(make_conversation()),
      process_(Process::start(command, conversation_.streams())) {
  conversation_.begin();
  const std::string first_line = conversation_.hear();
  if (first_line.starts_with("skip: ")) throw NotHere{first_line.substr(6)};
  if (first_line != "ready") throw std::runtime_error{command[0] + " said: " + first_line};
}

std::string Target::ask(std::string_view question) {
  try {
    return conversation_.ask(question);
  } catch (const std::exception& error) {
    if (!process_.ended(std::chrono::seconds{1})) throw;
    const std::string status = std::to_string(exit_status(process_.wait()));
    throw std::runtime_error{std::string{error.what()} + "; it ended with status " + status};
  }
}

}  // namespace test
