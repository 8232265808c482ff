// SPDX-License-Identifier: Apache-2.0
//
// State: eventfds with counts, one a semaphore, one at zero that does not block.
#include <sys/eventfd.h>

#include "target.hpp"

using namespace target;

static std::uint64_t take(int event) {
  std::uint64_t count = 0;
  must(::read(event, &count, sizeof count), "read of an eventfd");
  return count;
}

int main() {
  constexpr std::uint64_t kMany = 0x1234'5678'9abc;
  const int counter = static_cast<int>(must(::eventfd(0, EFD_CLOEXEC), "eventfd"));
  const int semaphore = static_cast<int>(must(::eventfd(3, EFD_SEMAPHORE), "eventfd"));
  const int empty = static_cast<int>(must(::eventfd(0, EFD_NONBLOCK), "eventfd"));
  const int copy = static_cast<int>(must(::dup2(counter, 60), "dup2"));
  must(::eventfd_write(counter, kMany), "write");

  return serve([&] {
    require(take(copy) == kMany, "another count");
    must(::eventfd_write(counter, kMany), "write");
    for (int left = 3; left > 0; --left) require(take(semaphore) == 1, "no semaphore any more");
    must(::eventfd_write(semaphore, 3), "write");
    std::uint64_t count = 0;
    require(raw(SYS_read, empty, &count, 8) == -EAGAIN, "a count, or it would block");
    require(::fcntl(counter, F_GETFD) == FD_CLOEXEC, "FD_CLOEXEC is gone");
  });
}
