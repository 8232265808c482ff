// SPDX-License-Identifier: Apache-2.0
//
// State: pipes inside the process: contents, another capacity, O_NONBLOCK, duplicates of both ends,
// one whose writing end is closed.
#include <linux/kcmp.h>
#include <sys/ioctl.h>

#include "target.hpp"

using namespace target;

static int capacity(int pipe) {
  return static_cast<int>(must(::fcntl(pipe, F_GETPIPE_SZ), "size"));
}

static void expect_contents(int pipe, const std::string& wanted) {
  int waiting = 0;
  must(::ioctl(pipe, FIONREAD, &waiting), "FIONREAD");
  require(static_cast<std::size_t>(waiting) == wanted.size(), std::to_string(waiting) + " bytes");
  std::string found(wanted.size(), '\0');
  must(::read(pipe, found.data(), found.size()), "read");
  require(found == wanted, "other bytes in the pipe");
}

int main() {
  int small[2], large[2], ended[2];
  must(::pipe(small), "pipe");
  must(::pipe2(large, O_NONBLOCK | O_CLOEXEC), "pipe2");
  must(::pipe(ended), "pipe");
  must(::fcntl(small[0], F_SETPIPE_SZ, 4096), "F_SETPIPE_SZ");
  must(::fcntl(large[0], F_SETPIPE_SZ, 1 << 20), "F_SETPIPE_SZ");
  must(::dup2(small[0], 50), "dup2");
  must(::dup2(small[1], 51), "dup2");
  std::string long_text;
  for (std::uint64_t n = random_number(); long_text.size() < 300'000; ++n)
    long_text += std::to_string(n);
  const auto refill = [&] {
    must(::write(51, "hello, pipe", 11), "write");
    must(::write(large[1], long_text.data(), long_text.size()), "write");
  };
  refill();
  must(::write(ended[1], "the end", 7), "write");
  ::close(ended[1]);

  return serve([&] {
    require(capacity(small[1]) == 4096 && capacity(large[1]) == 1 << 20, "another capacity");
    require((::fcntl(large[0], F_GETFL) & O_NONBLOCK) != 0, "O_NONBLOCK is gone");
    require((::fcntl(small[0], F_GETFL) & O_NONBLOCK) == 0, "O_NONBLOCK has come");
    require(::fcntl(large[1], F_GETFD) == FD_CLOEXEC, "FD_CLOEXEC is gone");
    for (const auto& [end, copy] : {std::pair{small[0], 50}, std::pair{small[1], 51}})
      require(raw(SYS_kcmp, ::getpid(), ::getpid(), KCMP_FILE, end, copy) == 0, "no duplicate");
    expect_contents(50, "hello, pipe");
    expect_contents(large[0], long_text);
    char byte;
    require(raw(SYS_read, large[0], &byte, 1) == -EAGAIN, "the pipe has no writer any more");
    int waiting = 0;
    must(::ioctl(ended[0], FIONREAD, &waiting), "FIONREAD");
    if (waiting > 0) expect_contents(ended[0], "the end");
    require(::read(ended[0], &byte, 1) == 0, "the pipe has a writer again");
    refill();
  });
}
