// SPDX-License-Identifier: Apache-2.0
#include "pid_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <icecore/error.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace icecore::tool {

PidFile::PidFile(std::string path)
    : path_(std::move(path)),
      temporary_path_(path_ + ".XXXXXX"),
      fd_(::mkostemp(temporary_path_.data(), O_CLOEXEC)) {
  if (fd_ < 0) fail("create", errno);
}

PidFile::~PidFile() {
  ::close(fd_);
  if (!temporary_path_.empty()) ::unlink(temporary_path_.c_str());
}

void PidFile::write(pid_t pid) {
  const std::string text = fmt::format("{}\n", pid);
  const ssize_t written = ::write(fd_, text.data(), text.size());
  if (written != static_cast<ssize_t>(text.size())) fail("write", written < 0 ? errno : ENOSPC);
  if (::fchmod(fd_, 0644) != 0) fail("set the mode of", errno);
  if (::rename(temporary_path_.c_str(), path_.c_str()) != 0) fail("create", errno);
  temporary_path_.clear();
}

void PidFile::fail(const char* operation, int error) const {
  throw Error{Errc::io, fmt::format("{} {}: {}", operation, path_, std::strerror(error)), error};
}

}  // namespace icecore::tool
