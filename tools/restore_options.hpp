// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <icecore/restore.hpp>

#include <string>
#include <vector>

namespace icecore::tool {

/// The options that say how an image is to be restored; `restore`, `check` and `run` share them.
class RestoreChoices {
 public:
  explicit RestoreChoices(CLI::App& app);

  RestoreOptions options() const;

 private:
  std::string pids_ = "auto";
  std::vector<std::string> externals_;
  std::vector<std::string> gpu_map_;
};

/// Not part of these: `run` restores one image many times, and a connection goes on only once.
void add_tcp_option(CLI::App& app, TcpConnections& chosen, const std::string& description);

}  // namespace icecore::tool
