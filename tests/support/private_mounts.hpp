// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sched.h>
#include <sys/mount.h>

#include <filesystem>
#include <string>
#include <vector>

#include "support/descriptor.hpp"

namespace test {

/// Mounts that only this process and its children see, for as long as this lives.
class PrivateMounts {
 public:
  /// Throws std::system_error where that is not allowed.
  PrivateMounts()
      : before_(must(::open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC), "/proc/self/ns/mnt")) {
    must(::unshare(CLONE_NEWNS), "unshare(CLONE_NEWNS)");
    must(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "mount /");
  }
  PrivateMounts(const PrivateMounts&) = delete;
  PrivateMounts& operator=(const PrivateMounts&) = delete;
  ~PrivateMounts() {
    for (const auto& folder : folders_) ::umount2(folder.c_str(), MNT_DETACH);
    ::setns(before_.get(), CLONE_NEWNS);
  }

  /// Shows `source` at `folder`, too, which is made, so that nobody can change it there.
  void show(const std::filesystem::path& source, const std::filesystem::path& folder) {
    std::filesystem::create_directories(folder);
    must(::mount(source.c_str(), folder.c_str(), nullptr, MS_BIND, nullptr), "mount --bind");
    folders_.push_back(folder);
    must(::mount(nullptr, folder.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr),
         "mount -o remount,bind,ro");
  }

  void mount_processes(const std::filesystem::path& folder) {
    std::filesystem::create_directories(folder);
    must(::mount("proc", folder.c_str(), "proc", 0, nullptr), "mount proc");
    folders_.push_back(folder);
  }

  void mount_memory(const std::filesystem::path& folder, const std::string& size,
                    unsigned long flags = 0) {
    must(::mount("tmpfs", folder.c_str(), "tmpfs", flags, ("size=" + size).c_str()), "mount tmpfs");
    folders_.push_back(folder);
  }

 private:
  Descriptor before_;
  std::vector<std::filesystem::path> folders_;
};

}  // namespace test
