// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>
#include <icecore/error.hpp>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace icecore::tool {

/// What a system call returned, such as a descriptor.  Throws Errc::io where that is -1.
inline int checked(int result, const char* subject) {
  if (result == -1)
    throw Error{Errc::io, fmt::format("{}: {}", subject, ::strerrordesc_np(errno)), errno};
  return result;
}

/// Owns a file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(const Descriptor&) = delete;
  ~Descriptor() { close(); }

  int get() const { return number_; }
  void close() {
    if (number_ >= 0) ::close(number_);
    number_ = -1;
  }

 private:
  int number_;
};

}  // namespace icecore::tool
