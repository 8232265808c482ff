// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace test {

/// A group below our own, with a limit of memory.  Of version 1 or 2; made() where that can be had.
class ControlGroup {
 public:
  explicit ControlGroup(std::uint64_t limit_bytes) {
    std::ifstream groups{"/proc/self/cgroup"};
    for (std::string line; std::getline(groups, line);) {
      const bool second = line.starts_with("0::");
      const std::size_t first = line.find(":memory:");
      if (!second && first == std::string::npos) continue;
      const std::string own = second ? "/sys/fs/cgroup" + line.substr(3)
                                     : "/sys/fs/cgroup/memory" + line.substr(first + 8);
      for (const char* name : {"memory.max", "memory.limit_in_bytes"})
        if (try_at(own, name, limit_bytes)) return;
    }
  }
  ControlGroup(const ControlGroup&) = delete;
  ControlGroup& operator=(const ControlGroup&) = delete;
  ~ControlGroup() {
    if (made()) ::rmdir(folder_.c_str());
  }

  bool made() const { return !folder_.empty(); }
  std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }

  void add(pid_t pid) const { std::ofstream{folder_ / "cgroup.procs"} << pid << std::flush; }
  void limit(std::uint64_t bytes) const { std::ofstream{limit_} << bytes << std::flush; }

 private:
  bool try_at(const std::string& own, const char* name, std::uint64_t limit_bytes) {
    const std::filesystem::path folder =
        own + "/icecore-test-" + std::to_string(::getpid()) + "-" + name;
    std::error_code error;
    if (!std::filesystem::is_directory(own) || !std::filesystem::create_directory(folder, error))
      return false;
    limit_ = folder / name;
    if (std::filesystem::exists(limit_) && (std::ofstream{limit_} << limit_bytes << std::flush)) {
      folder_ = folder;
      return true;
    }
    ::rmdir(folder.c_str());
    return false;
  }

  std::filesystem::path folder_, limit_;
};

}  // namespace test
