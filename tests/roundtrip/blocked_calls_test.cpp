// SPDX-License-Identifier: Apache-2.0
//
// A system call with a time goes on as if nothing had happened: it returns what it would have
// returned, not before its time, and not with its time begun anew.
#include <catch2/catch.hpp>
#include <icecore/error.hpp>
#include <icecore/snapshot.hpp>
#include <poll.h>
#include <sys/ipc.h>
#include <sys/sem.h>

#include <chrono>

#include "support/restored.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kTimeout{2000};
constexpr milliseconds kHalf = kTimeout / 2;

/// What scheduling may add on a busy machine; far less than the half that beginning anew would add.
constexpr milliseconds kSlack{800};

milliseconds since(Clock::time_point begin) {
  return std::chrono::duration_cast<milliseconds>(Clock::now() - begin);
}

/// Lets the first half of the time go by, as seen by a call that waits for nothing else.
void wait_half() { ::poll(nullptr, 0, static_cast<int>(kHalf.count())); }

/// `answer` is "ok MS" of a target.
void expect_took(const std::string& answer, milliseconds away) {
  INFO(answer);
  REQUIRE(answer.starts_with("ok "));
  const milliseconds took{std::stol(answer.substr(3))};
  CHECK(took >= kTimeout);
  CHECK(took < kTimeout + away + kSlack);
}

const char* const kTimedCalls[] = {"blocked_in_futex",           "blocked_in_futex_until",
                                   "blocked_in_nanosleep",       "blocked_in_nanosleep_with_rest",
                                   "blocked_in_clock_nanosleep", "blocked_in_poll",
                                   "blocked_in_ppoll",           "blocked_in_select"};

TEST_CASE("a timed call goes on after a snapshot that leaves its process running") {
  const std::string name = GENERATE(from_range(std::begin(kTimedCalls), std::end(kTimedCalls)));
  INFO(name);
  TemporaryFolder folder;
  Target target{name};
  REQUIRE(target.ask("block " + std::to_string(kTimeout.count())) == "blocked");
  wait_half();
  const auto begin = Clock::now();
  icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
  const milliseconds away = since(begin);
  expect_took(target.ask("outcome?"), away);
  CHECK(target.ask("check?") == "ok");
}

TEST_CASE("a timed call goes on after a restore with the time that was left") {
  const std::string name = GENERATE(from_range(std::begin(kTimedCalls), std::end(kTimedCalls)));
  INFO(name);
  TemporaryFolder folder;
  Target target{name};
  REQUIRE(target.ask("block " + std::to_string(kTimeout.count())) == "blocked");
  wait_half();
  const auto begin = Clock::now();
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  Restored restored{folder / "image"};
  REQUIRE(restored.running());
  const milliseconds away = since(begin);
  expect_took(restored.ask("outcome?"), away);
  CHECK(restored.ask("check?") == "ok");
}

/// Semaphores of the machine, which no process owns.
struct Semaphores {
  int id = must(::semget(IPC_PRIVATE, 1, 0600), "semget");
  ~Semaphores() { ::semctl(id, 0, IPC_RMID); }
};

TEST_CASE("semtimedop goes on after a snapshot that leaves its process running") {
  TemporaryFolder folder;
  const Semaphores semaphores;
  Target target{"blocked_in_semtimedop", {std::to_string(semaphores.id)}};
  REQUIRE(target.ask("block " + std::to_string(kTimeout.count())) == "blocked");
  try {
    icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
  } catch (const icecore::Error& error) {
    CHECK(error.code() == icecore::Errc::unsupported);  // allowed; the target must not notice
  }
  expect_took(target.ask("outcome?"), milliseconds{0});
  CHECK(target.ask("check?") == "ok");
}

TEST_CASE("epoll_wait goes on after a snapshot that was refused") {
  TemporaryFolder folder;
  Target target{"blocked_in_epoll_wait"};
  REQUIRE(target.ask("block " + std::to_string(kTimeout.count())) == "blocked");
  CHECK_THROWS_AS(icecore::snapshot(target.pid(), folder / "image"), icecore::Error);
  expect_took(target.ask("outcome?"), milliseconds{0});
  CHECK(target.ask("check?") == "ok");
  CHECK_FALSE(std::filesystem::exists(folder / "image"));
}

}  // namespace
}  // namespace test
