// SPDX-License-Identifier: Apache-2.0
//
// CRIU on the same workload, where there is one that works.
#pragma once

#include <array>
#include <filesystem>
#include <memory>

#include "process.hpp"
#include "statistics.hpp"

namespace bench {

class Criu {
 public:
  /// What standard input, output and error of a program are called in /proc ("pipe:[4711]").
  using Streams = std::array<std::string, 3>;
  static Streams streams_of(pid_t pid) {
    Streams streams;
    for (std::size_t i = 0; i < streams.size(); ++i)
      streams[i] = std::filesystem::read_symlink(fmt::format("/proc/{}/fd/{}", pid, i));
    return streams;
  }

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

  /// The command that restores, with its own standard streams in place of the program's.
  /// `lazily`: from a server of pages that runs.
  Command restore_command(const std::filesystem::path& folder, const Streams& streams,
                          bool lazily = false) const {
    // CRIU 4.1 closes what it inherits, and then misses its own standard input.
    Command command = {"sh", "-c", "exec \"$@\" 7<&0 8>&1 9>&2", "sh"};
    command.insert(command.end(), {program_, "restore", "-D", folder, "--shell-job"});
    if (lazily) command.insert(command.end(), {"--lazy-pages", "-W", folder});
    int number = 7;
    for (const std::string& stream : streams) {
      command.push_back("--inherit-fd");
      const std::string name = stream.starts_with('/') ? stream.substr(1) : stream;
      command.push_back(fmt::format("fd[{}]:{}", number++, name));
    }
    return command;
  }

  /// The server of pages for one lazy restore, ready.
  std::unique_ptr<Program> serve_pages(const std::filesystem::path& folder) const {
    const std::filesystem::path socket = folder / "lazy-pages.socket";
    std::filesystem::remove(socket);
    auto server = std::make_unique<Program>(
        Command{program_, "lazy-pages", "-D", folder, "-W", folder}, Errors::kept);
    const auto begin = Clock::now();
    while (!std::filesystem::exists(socket))
      if (seconds_since(begin) > 20)
        throw std::runtime_error{"criu lazy-pages is not ready: " + server->error_text()};
    return server;
  }

 private:
  std::string program_;
  bool works_ = false;
  std::string reason_;
};

}  // namespace bench
