// SPDX-License-Identifier: Apache-2.0
//
// What the benches see of other processes, and of the page cache.
#pragma once

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include "limits.hpp"
#include "statistics.hpp"

namespace bench {

inline double resident_bytes(pid_t pid) {
  std::ifstream file{fmt::format("/proc/{}/statm", pid)};
  double size = 0, resident = 0;
  file >> size >> resident;
  return resident * kPageBytes;
}

/// In kilobytes in the file; a page that several processes share counts in parts.  0: it has ended.
inline double proportional_bytes(pid_t pid) {
  std::ifstream file{fmt::format("/proc/{}/smaps_rollup", pid)};
  for (std::string word; file >> word;)
    if (double kilobytes = 0; word == "Pss:" && file >> kilobytes) return kilobytes * 1024;
  return 0;
}

inline void drop_page_cache() {
  ::sync();
  std::ofstream{"/proc/sys/vm/drop_caches"} << "1\n";
}

/// Not one of icecore's own.  A child belongs to whichever thread made it, or to another after
/// that one has ended.
inline pid_t child_of(pid_t pid) {
  std::error_code gone;
  for (const auto& task :
       std::filesystem::directory_iterator{fmt::format("/proc/{}/task", pid), gone}) {
    std::ifstream file{task.path() / "children"};
    for (pid_t child = 0; file >> child;) {
      std::string name;
      std::getline(std::ifstream{fmt::format("/proc/{}/comm", child)} >> std::ws, name);
      if (!name.empty() && !name.starts_with("icecore")) return child;
    }
  }
  return 0;
}

/// Of a program that restored one, which lives.  The kernel's list may lack it while another child
/// ends.
inline pid_t await_child_of(pid_t pid) {
  const auto begin = Clock::now();
  for (;;) {
    if (const pid_t child = child_of(pid); child != 0) return child;
    if (seconds_since(begin) > 20) throw std::runtime_error{"it has no child"};
  }
}

}  // namespace bench
