// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>

namespace icecore::tool {

/// A file that will hold a process id.  Made beside the wanted name at once, so that a folder that
/// cannot be written is found before any process runs; there under its name, whole, with write().
class PidFile {
 public:
  explicit PidFile(std::string path);
  PidFile(const PidFile&) = delete;
  ~PidFile();

  void write(pid_t pid);

 private:
  [[noreturn]] void fail(const char* operation, int error) const;

  std::string path_;
  std::string temporary_path_;  // empty once renamed
  int fd_;
};

}  // namespace icecore::tool
