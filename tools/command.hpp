// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>

#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace icecore::tool {

/// One use of a subcommand: the constructor of each kind declares its options, which the parser
/// then fills; run() does the work.
class Invocation {
 public:
  virtual ~Invocation() = default;

  /// Returns the exit status.  Throws icecore::Error; main() prints it.
  virtual int run() = 0;

  bool json = false;
  std::FILE* json_stream = stdout;  ///< also for an error, if `json`

  /// For `run`: everything behind the first "--".
  std::vector<std::string> behind_dashes;

  /// The signal that asked for an end, or 0; see StopOnSignal.
  std::atomic<int> stop_signal = 0;

 protected:
  void add_json_option(CLI::App& app) { app.add_flag("--json", json, "Print one JSON object"); }
};

/// One `icecore NAME`.  All of them are in the table in icecore.cpp.
struct Command {
  const char* name;
  const char* summary;
  int failure_status;
  std::unique_ptr<Invocation> (*declare)(CLI::App& app);
};

template <class Kind>
std::unique_ptr<Invocation> declare(CLI::App& app) {
  return std::make_unique<Kind>(app);
}

extern const Command kSnapshot;
extern const Command kRestore;
extern const Command kCheck;
extern const Command kInspect;
extern const Command kVerify;
extern const Command kCore;
extern const Command kRun;
extern const Command kStore;
extern const Command kHost;
extern const Command kFleet;

/// What `restore` and `run` end with when icecore itself fails, as env(1) and timeout(1) do, so
/// that it is not mistaken for a status of the restored process.
constexpr int kOwnFailure = 125;

}  // namespace icecore::tool
