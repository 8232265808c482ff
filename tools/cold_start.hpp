// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <signal.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "ready.hpp"

namespace icecore::tool {

/// A program started as anybody would, and what is done once, when it is ready.
struct ColdStart {
  std::vector<std::string> command;
  std::filesystem::path executable;      ///< that it runs
  std::vector<std::string> environment;  ///< besides ours, as "NAME=VALUE"
  sigset_t signal_mask{};                ///< that it begins with
  int inherited = -1;                    ///< a descriptor of ours that it gets, or -1

  Ready* ready = nullptr;  ///< may be none
  std::chrono::milliseconds deadline{};

  /// Called when it is ready, on a thread of its own: meanwhile the program lives on before our
  /// eyes.
  std::function<void(pid_t)> when_ready = {};
  /// Called when it is not by the deadline.
  std::function<void()> when_late = {};
  std::function<void(pid_t)> when_started = {};
};

/// Lives the life of the program and returns its status as a shell has it; 127 when there is no
/// such program, 126 when it cannot be started.
int run_cold(const ColdStart& start);

}  // namespace icecore::tool
