// SPDX-License-Identifier: Apache-2.0
#include "invocation_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <icecore/error.hpp>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <string>

namespace icecore::tool {
namespace {

constexpr int kFirst = 200;

int make(const std::string& text) {
  const int file = ::memfd_create("icecore invocation", MFD_CLOEXEC);
  const int high = file >= 0 ? ::fcntl(file, F_DUPFD, kFirst) : -1;
  if (file >= 0) ::close(file);
  if (high < 0 || ::pwrite(high, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
    throw Error{Errc::io,
                fmt::format("make a file for the invocation: {}", ::strerrordesc_np(errno)), errno};
  return high;
}

}  // namespace

InvocationFile::InvocationFile(const icecore::Invocation& invocation) : fd_(-1) {
  std::string text;
  for (const std::string& variable : invocation.variables) text.append(variable).push_back('\0');
  text.push_back('\0');
  for (const std::string& argument : invocation.arguments) text.append(argument).push_back('\0');
  fd_ = make(text);
}

InvocationFile::~InvocationFile() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace icecore::tool
