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

/// A group that can be frozen; of version 1 or 2.
class Freezer {
 public:
  Freezer() {
    for (const char* root :
         {"/sys/fs/cgroup/freezer", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"}) {
      const std::filesystem::path folder =
          std::string{root} + "/icecore-test-" + std::to_string(::getpid());
      std::error_code error;
      if (!std::filesystem::create_directory(folder, error)) continue;
      for (const char* name : {"freezer.state", "cgroup.freeze"})
        if (std::filesystem::exists(folder / name)) {
          folder_ = folder;
          switch_ = folder / name;
          return;
        }
      ::rmdir(folder.c_str());
    }
  }
  Freezer(const Freezer&) = delete;
  Freezer& operator=(const Freezer&) = delete;
  ~Freezer() {
    if (!made()) return;
    thaw();
    // Who is still in it goes where it came from.
    std::ifstream members{folder_ / "cgroup.procs"};
    for (std::string pid; std::getline(members, pid);)
      std::ofstream{folder_.parent_path() / "cgroup.procs"} << pid << std::flush;
    ::rmdir(folder_.c_str());
  }

  bool made() const { return !folder_.empty(); }
  void add(pid_t pid) const { std::ofstream{folder_ / "cgroup.procs"} << pid << std::flush; }
  void freeze() const { set(is_first() ? "FROZEN" : "1"); }
  void thaw() const { set(is_first() ? "THAWED" : "0"); }

 private:
  bool is_first() const { return switch_.filename() == "freezer.state"; }
  void set(const char* state) const { std::ofstream{switch_} << state << std::flush; }

  std::filesystem::path folder_, switch_;
};

}  // namespace test
