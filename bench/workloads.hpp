// SPDX-License-Identifier: Apache-2.0
//
// The real programs that more than one bench measures, and how a program is asked: by lines, or,
// when it listens, by requests over a connection of their own.
#pragma once

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "observe.hpp"
#include "process.hpp"
#include "statistics.hpp"
#include "support/local_port.hpp"

namespace bench {

struct Workload {
  std::string name;   ///< on the command line, in JSON
  std::string title;  ///< in tables
  Command command;
  std::string question = "ping";  ///< its answer shows that the program works
  int port = 0;                   ///< where it listens; 0: it talks by lines
  std::string fill = {};          ///< a request before it is what it should be
  Command build = {};             ///< makes the program
};

inline std::string target(const std::string& name) {
  return std::string{ICECORE_TARGET_DIR} + "/" + name;
}

inline std::string script(const std::string& name) {
  return std::string{ICECORE_SOURCE_DIR} + "/tests/programs/" + name;
}

/// `folder` is for what they need; it has to stay.  `quick`: those that take a moment only.
inline std::vector<Workload> real_programs(bool quick, const std::filesystem::path& folder) {
  std::vector<Workload> programs = {
      {"numpy", "python3 with numpy", {"/usr/bin/python3", script("with_numpy.py")}, "secret?"},
      {"torch", "python3 with torch", {"/usr/bin/python3", script("with_torch.py")}, "secret?"},
  };
  const int keys = quick ? 60'000 : 950'000;  // of 1,000 bytes, and 130 for each beside them
  int port = test::free_port();
  programs.push_back({.name = "redis",
                      .title = fmt::format("redis-server with {} MiB", quick ? 64 : 1024),
                      .command = {"/usr/bin/redis-server", "--port", std::to_string(port), "--bind",
                                  "127.0.0.1", "--save", "", "--enable-debug-command", "yes"},
                      .question = fmt::format("GET key:{}\r\nQUIT\r\n", keys / 3),
                      .port = port,
                      .fill = fmt::format("DEBUG POPULATE {} key 1000\r\nQUIT\r\n", keys)});
  if (quick) return programs;
  port = test::free_port();
  programs.push_back({.name = "node",
                      .title = "node, an HTTP server",
                      .command = {"/usr/bin/node", script("http_server.js"), std::to_string(port)},
                      .question = test::http_get("/secret"),
                      .port = port});
  port = test::free_port();
  programs.push_back({.name = "java",
                      .title = "java, an HTTP server with threads",
                      // Without a file in /tmp that another java removes.
                      .command = {"/usr/bin/java", "-XX:-UsePerfData", "-XX:+UseG1GC", "-Xmx256m",
                                  "-cp", folder, "Answers", std::to_string(port)},
                      .question = test::http_get("/secret"),
                      .port = port,
                      .build = {"/usr/bin/javac", "-d", folder, script("Answers.java")}});
  return programs;
}

inline void skip_unless_installed(const Command& command) {
  if (!command.empty() && ::access(command[0].c_str(), X_OK) != 0)
    throw std::runtime_error{"skip: " + command[0] + " is not installed"};
}

/// Once, before it is started for the first time.  Throws "skip: …" when it cannot run here.
inline void build(const Workload& workload) {
  skip_unless_installed(workload.command);
  skip_unless_installed(workload.build);
  if (!workload.build.empty()) run(workload.build);
}

/// Over a connection of its own, as soon as somebody listens.
inline std::string request(Program& program, int port, const std::string& words) {
  const auto begin = Clock::now();
  for (;;) {
    if (const auto answer = test::talk(port, words)) return test::http_body(*answer);
    if (program.ended()) throw std::runtime_error{"it ended: " + program.error_text()};
    if (seconds_since(begin) > 120) throw std::runtime_error{"nobody listens"};
    std::this_thread::sleep_for(std::chrono::microseconds{50});  // it may want this CPU
  }
}

/// The question of the workload.
inline std::string ask(Program& program, const Workload& workload) {
  return workload.port == 0 ? program.ask(workload.question)
                            : request(program, workload.port, workload.question);
}

/// Until a program that was just started can be asked.
inline void await_ready(Program& program, const Workload& workload) {
  if (workload.port == 0) {
    if (const std::string word = program.hear(); word != "ready")
      throw std::runtime_error{word};  // "skip: …"
  } else if (!workload.fill.empty()) {
    request(program, workload.port, workload.fill);
  }
}

/// Until its side of every connection is closed too; it could not be snapshotted before.
inline void await_no_connection(const Workload& workload) {
  const auto is_open = [&](const char* table) {
    std::ifstream lines{table};
    std::string line, number, local, remote, state, inode;
    for (std::getline(lines, line); std::getline(lines, line);) {
      std::istringstream fields{line};
      fields >> number >> local >> remote >> state;
      for (int field = 4; field < 10; ++field) fields >> inode;
      if (local.ends_with(fmt::format(":{:04X}", workload.port)) && state != "0A" && inode != "0")
        return true;
    }
    return false;
  };
  const auto begin = Clock::now();
  while (workload.port != 0 && (is_open("/proc/net/tcp") || is_open("/proc/net/tcp6")))
    if (seconds_since(begin) > 60) throw std::runtime_error{"a connection stays open"};
}

/// Ends the program that the command `program` restored, and with that the command.
inline void end_restored(Program& program, const Workload& workload) {
  if (workload.port != 0) ::kill(await_child_of(program.pid()), SIGKILL);
  program.hang_up();
}

}  // namespace bench
