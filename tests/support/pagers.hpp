// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace test {

/// Whether a process holds a pidfd of another.  It may end meanwhile.
inline bool holds_pidfd_of(const std::filesystem::path& process, pid_t other) {
  const std::string wanted = "Pid:\t" + std::to_string(other);
  try {
    for (const auto& info : std::filesystem::directory_iterator{process / "fdinfo"}) {
      std::ifstream lines{info.path()};
      for (std::string line; std::getline(lines, line);)
        if (line == wanted) return true;
    }
  } catch (const std::filesystem::filesystem_error&) {
  }
  return false;
}

/// The two processes that serve a restored one.
inline std::vector<pid_t> pagers_of(pid_t served) {
  std::vector<pid_t> pagers;
  for (const auto& entry : std::filesystem::directory_iterator{"/proc"}) {
    const pid_t pid = std::atoi(entry.path().filename().c_str());
    std::ifstream name{entry.path() / "comm"};
    std::string comm;
    if (pid != 0 && std::getline(name, comm) && comm == "icecore-pager" &&
        holds_pidfd_of(entry.path(), served))
      pagers.push_back(pid);
  }
  return pagers;
}

}  // namespace test
