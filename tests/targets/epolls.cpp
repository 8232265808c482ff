// SPDX-License-Identifier: Apache-2.0
//
// State: epoll instances: level and edge triggered, one-shot armed and fired, user data, an
// instance in another, a watch whose number is closed or leads elsewhere, the same file under two
// numbers.
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>

#include "target.hpp"

using namespace target;

static int event_file(unsigned count) {
  return static_cast<int>(must(::eventfd(count, EFD_NONBLOCK), "eventfd"));
}

static void control(int epoll, int what, int fd, std::uint32_t events, std::uint64_t data) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = data;
  must(::epoll_ctl(epoll, what, fd, &event), "epoll_ctl of " + std::to_string(fd));
}

/// The data of everything that is reported now, ascending.
static std::vector<std::uint64_t> reported(int epoll) {
  epoll_event events[16];
  const long count = must(::epoll_wait(epoll, events, 16, 0), "epoll_wait");
  std::vector<std::uint64_t> data;
  for (long i = 0; i < count; ++i) data.push_back(events[i].data.u64);
  std::sort(data.begin(), data.end());
  return data;
}

static void expect(int epoll, const std::vector<std::uint64_t>& wanted, const std::string& when) {
  std::string text;
  const auto found = reported(epoll);
  for (const std::uint64_t data : found) text += std::to_string(data) + " ";
  require(found == wanted, when + ": reported " + text);
}

int main() {
  constexpr std::uint64_t kBig = 0xfedc'ba98'7654'3210;
  const int epoll = static_cast<int>(must(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1"));
  const int outer = static_cast<int>(must(::epoll_create1(0), "epoll_create1"));
  const int level = event_file(0), edge = event_file(0), armed = event_file(0);
  const int fired = event_file(0), stuck = event_file(0), kept = event_file(0),
            moved = event_file(0);
  int pipe[2];
  must(::pipe(pipe), "pipe");
  control(epoll, EPOLL_CTL_ADD, level, EPOLLIN, 1);
  control(epoll, EPOLL_CTL_ADD, edge, EPOLLIN | EPOLLET, 2);
  control(epoll, EPOLL_CTL_ADD, armed, EPOLLIN | EPOLLONESHOT, 3);
  control(epoll, EPOLL_CTL_ADD, fired, EPOLLIN | EPOLLONESHOT, 4);
  control(epoll, EPOLL_CTL_ADD, pipe[0], EPOLLIN | EPOLLONESHOT, 5);
  control(epoll, EPOLL_CTL_ADD, stuck, EPOLLIN | EPOLLEXCLUSIVE, kBig);
  control(outer, EPOLL_CTL_ADD, epoll, EPOLLIN, 7);

  // One number is closed, the other leads elsewhere; a duplicate keeps each file, and its watch.
  const int kept_copy = static_cast<int>(must(::dup2(kept, 70), "dup2"));
  control(epoll, EPOLL_CTL_ADD, kept, EPOLLIN, 8);
  control(epoll, EPOLL_CTL_ADD, kept_copy, EPOLLIN, 9);
  must(::close(kept), "close");
  const int moved_copy = static_cast<int>(must(::dup2(moved, 71), "dup2"));
  control(epoll, EPOLL_CTL_ADD, moved, EPOLLIN, 10);
  must(::dup3(pipe[1], moved, O_CLOEXEC), "dup3");
  control(epoll, EPOLL_CTL_ADD, moved, EPOLLIN, 11);  // a writing end is never readable

  for (const int file : {fired, pipe[1]}) must(::write(file, "12345678", 8), "write");
  expect(epoll, {4, 5}, "at the start");
  std::uint64_t word;
  must(::read(fired, &word, 8), "read");
  must(::read(pipe[0], &word, 8), "read");

  return serve([&] {
    expect(outer, {}, "nothing is ready");
    for (const int file : {level, edge, fired, stuck, moved_copy})
      must(::eventfd_write(file, 1), "write");
    expect(outer, {7}, "the inner is ready");
    expect(epoll, {1, 2, 10, kBig}, "some are ready");
    expect(epoll, {1, 10, kBig}, "once more");
    must(::eventfd_write(kept_copy, 1), "write");
    expect(epoll, {1, 8, 9, 10, kBig}, "with two watches of one file");
    must(::write(pipe[1], "12345678", 8), "write");
    expect(epoll, {1, 8, 9, 10, kBig}, "with what had been reported once");
    for (const int file : {level, edge, fired, stuck, moved_copy, kept_copy, pipe[0]})
      must(::read(file, &word, 8), "read");

    must(::eventfd_write(armed, 1), "write");
    expect(epoll, {3}, "the one that was armed");
    expect(epoll, {}, "the one that was armed, again");
    must(::read(armed, &word, 8), "read");
    control(epoll, EPOLL_CTL_MOD, armed, EPOLLIN | EPOLLONESHOT, 3);
    require(::fcntl(moved, F_GETFD) == FD_CLOEXEC, "FD_CLOEXEC is gone");
    require(raw(SYS_fcntl, kept, F_GETFD) == -EBADF, "a number is open again");
  });
}
