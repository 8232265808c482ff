// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace test {

/// Throws std::system_error when a system call has failed; else its result.
template <class Result>
Result must(Result result, const char* what) {
  if (result == -1) throw std::system_error{errno, std::generic_category(), what};
  return result;
}

/// Owns a file descriptor.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }

  int get() const { return number_; }

 private:
  int number_ = -1;
};

/// Both ends are closed on exec.
struct Pipe {
  Descriptor read_end, write_end;

  Pipe() {
    int ends[2];
    must(::pipe2(ends, O_CLOEXEC), "pipe2");
    read_end = Descriptor{ends[0]};
    write_end = Descriptor{ends[1]};
  }
};

}  // namespace test
