// SPDX-License-Identifier: Apache-2.0
//
// CRIU on the same workload, where there is one that works.
#pragma once

#include <filesystem>
#include <optional>

#include "process.hpp"
#include "statistics.hpp"

namespace bench {

class Criu {
 public:
  /// `program` as the user gave it, or "criu" from PATH.
  explicit Criu(std::string program) : program_(std::move(program)) {
    try {
      run({program_, "check"});
      works_ = true;
    } catch (const std::exception& error) {
      reason_ = error.what();
    }
  }

  bool works() const { return works_; }
  const std::string& reason() const { return reason_; }

  /// Seconds of a dump that leaves the process running.
  double dump(pid_t pid, const std::filesystem::path& folder) const {
    return timed([&] {
      run({program_, "dump", "-t", std::to_string(pid), "-D", folder, "--shell-job",
           "--leave-running"});
    });
  }

  /// The command that restores, with its own standard streams in place of the program's, whose
  /// names in /proc were `in` and `out` ("pipe:[4711]").
  Command restore_command(const std::filesystem::path& folder, const std::string& in,
                          const std::string& out, const std::string& error) const {
    Command command = {program_, "restore", "-D", folder, "--shell-job"};
    int number = 0;
    for (const std::string& stream : {in, out, error}) {
      command.push_back("--inherit-fd");
      const std::string name = stream.starts_with('/') ? stream.substr(1) : stream;
      command.push_back(fmt::format("fd[{}]:{}", number++, name));
    }
    return command;
  }

 private:
  std::string program_;
  bool works_ = false;
  std::string reason_;
};

}  // namespace bench
