// SPDX-License-Identifier: Apache-2.0
#include "sys/testament.hpp"

#include <catch2/catch.hpp>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <string>

namespace test::testament_test {

enum class End { killed, revoked_and_killed };

/// What comes through a pipe from a process that has made its testament, and then ends.
std::string left_by(End end) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::close(ends[0]);
    static const char first[] = "first ", second[] = "second";
    const auto write = [&](const char* text, std::uint64_t size) {
      return icecore::sys::LastCall{
          SYS_write,
          {static_cast<std::uint64_t>(ends[1]), reinterpret_cast<std::uint64_t>(text), size}};
    };
    std::optional<icecore::sys::Testament> testament;
    testament.emplace(std::vector{write(first, sizeof first - 1), write(second, 6)});
    if (end == End::revoked_and_killed) testament.reset();
    ::kill(::getpid(), SIGKILL);
  }
  ::close(ends[1]);
  std::string heard;
  char bytes[64];
  for (ssize_t count; (count = ::read(ends[0], bytes, sizeof bytes)) > 0;)
    heard.append(bytes, static_cast<std::size_t>(count));
  ::close(ends[0]);
  int status = 0;
  CHECK(::waitpid(pid, &status, 0) == pid);
  CHECK(WIFSIGNALED(status));
  return heard;
}

TEST_CASE("the calls of a testament are made when its process is killed") {
  CHECK(left_by(End::killed) == "first second");
}

TEST_CASE("a testament that is revoked does nothing") {
  CHECK(left_by(End::revoked_and_killed) == "");
}

TEST_CASE("a testament leaves no child behind") {
  { const icecore::sys::Testament testament{{}}; }
  CHECK(::waitpid(-1, nullptr, __WALL | WNOHANG) == -1);
  CHECK(errno == ECHILD);
}

}  // namespace test::testament_test
