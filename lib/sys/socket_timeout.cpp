// SPDX-License-Identifier: Apache-2.0
#include "sys/socket_timeout.hpp"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "sys/call.hpp"

namespace icecore::sys {

std::optional<std::chrono::nanoseconds> socket_timeout(const Fd& socket, int option) {
  ::timeval timeout{};
  ::socklen_t size = sizeof timeout;
  if (::getsockopt(socket.get(), SOL_SOCKET, option, &timeout, &size) != 0) return std::nullopt;
  return std::chrono::seconds{timeout.tv_sec} + std::chrono::microseconds{timeout.tv_usec};
}

void set_socket_timeout(const Fd& socket, int option, std::chrono::nanoseconds timeout) {
  const auto whole = std::chrono::ceil<std::chrono::microseconds>(timeout).count();
  const ::timeval value{whole / 1'000'000, whole % 1'000'000};
  checked([&] { return ::setsockopt(socket.get(), SOL_SOCKET, option, &value, sizeof value); },
          "set the timeout of a socket");
}

std::optional<std::chrono::nanoseconds> socket_timeout(const Fd& process, int number, int option) {
  const Fd copy{static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), number, 0))};
  return copy ? socket_timeout(copy, option) : std::nullopt;
}

}  // namespace icecore::sys
