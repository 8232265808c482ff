// SPDX-License-Identifier: Apache-2.0
//
// A system call with a time goes on as if nothing had happened: it returns what it would have
// returned, not before its time, and not with its time begun anew.
#include <catch2/catch.hpp>
#include <icecore/error.hpp>
#include <icecore/snapshot.hpp>
#include <poll.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>

#include <chrono>
#include <deque>
#include <fstream>
#include <optional>
#include <stop_token>

#include "support/patience.hpp"
#include "support/restored.hpp"
#include "support/skip.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::blocked_calls_test {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kTimeout{2000};
constexpr milliseconds kHalf = kTimeout / 2;

/// What scheduling may add on a busy machine; far less than the half that beginning anew would add.
constexpr milliseconds kSlack{800};

milliseconds since(Clock::time_point begin) {
  return std::chrono::duration_cast<milliseconds>(Clock::now() - begin);
}

/// As seen by a call that waits for nothing else.
void wait_for(milliseconds time) { ::poll(nullptr, 0, static_cast<int>(time.count())); }

/// Semaphores of the machine, which no process owns.
struct Semaphores {
  int id = must(::semget(IPC_PRIVATE, 1, 0600), "semget");
  ~Semaphores() { ::semctl(id, 0, IPC_RMID); }
};

/// One of the targets that block in a call with a time, inside that call.
class TimedCall {
 public:
  TimedCall(std::string name, milliseconds timeout)
      : name_(std::move(name)), target_(name_, arguments_of(name_)) {
    REQUIRE(target_.ask(fmt::format("block {}", timeout.count())) == "blocked");
  }

  const std::string& name() const { return name_; }

  void snapshot(bool kill) {
    INFO(name_);
    const auto begin = Clock::now();
    icecore::snapshot(target_.pid(), folder_ / "image", {.kill = kill, .fsync = false});
    if (kill) {
      target_.process().await_end();
      restored_.emplace(folder_ / "image");
      REQUIRE(restored_->running());
    }
    away_ += since(begin);
  }

  /// It is given up while the process stands still.
  void fail_to_snapshot() {
    INFO(name_);
    const auto begin = Clock::now();
    std::stop_source stop;
    const auto give_up = [&](auto&&...) { stop.request_stop(); };
    CHECK_THROWS_AS(icecore::snapshot(target_.pid(), folder_ / "image",
                                      {.progress = give_up, .stop = stop.get_token()}),
                    icecore::Error);
    away_ += since(begin);
  }

  /// `at_most`: beyond the time that it was away.
  void expect_took(milliseconds timeout, milliseconds at_most) {
    const std::string answer = ask("outcome?");
    INFO(name_ << " took " << answer << " ms, away for " << away_.count());
    REQUIRE(answer.starts_with("ok "));
    const milliseconds took{std::stol(answer.substr(3))};
    CHECK(took >= timeout);
    CHECK(took < at_most + away_);
    CHECK(ask("check?") == "ok");
  }

 private:
  Arguments arguments_of(const std::string& name) const {
    return name == "blocked_in_semtimedop" ? Arguments{std::to_string(semaphores_.id)}
                                           : Arguments{};
  }

  std::string ask(const std::string& question) {
    return restored_ ? restored_->ask(question) : target_.ask(question);
  }

  std::string name_;
  TemporaryFolder folder_;
  Semaphores semaphores_;
  Target target_;
  std::optional<Restored> restored_;
  milliseconds away_{0};
};

const std::string kSocketCall = "blocked_in_recv";
const std::vector<std::string> kCalls{
    // Restarted by the kernel from its restart block, or from arguments that say when it ends.
    "blocked_in_futex", "blocked_in_futex_until", "blocked_in_futex_waitv", "blocked_in_nanosleep",
    "blocked_in_clock_nanosleep", "blocked_in_nanosleep_with_rest", "blocked_in_poll",
    "blocked_in_epoll_wait", "blocked_in_ppoll", "blocked_in_select",
    // Begun anew, with the whole timeout unless somebody sees to it.
    "blocked_in_semtimedop", "blocked_in_sigtimedwait", "blocked_in_epoll_pwait2", kSocketCall};

/// All at the same time: each takes seconds.
std::deque<TimedCall> timed_calls(milliseconds timeout, bool with_socket = true) {
  std::deque<TimedCall> calls;
  for (const std::string& name : kCalls)
    if (with_socket || name != kSocketCall) calls.emplace_back(name, timeout);
  return calls;
}

TEST_CASE("a timed call goes on after a snapshot that leaves its process running") {
  auto calls = timed_calls(kTimeout);
  wait_for(kHalf);
  for (TimedCall& call : calls) call.snapshot(false);
  for (TimedCall& call : calls) call.expect_took(kTimeout, kTimeout + kSlack);
}

TEST_CASE("a timed call goes on after a restore with the time that was left") {
  auto calls = timed_calls(kTimeout);
  wait_for(kHalf);
  for (TimedCall& call : calls) call.snapshot(true);
  for (TimedCall& call : calls) call.expect_took(kTimeout, kTimeout + kSlack);
}

TEST_CASE("a timed call that is restored twice ends when it would have") {
  if (::access("/proc/timer_list", R_OK) != 0)
    return skip("/proc/timer_list: only root may read it");
  constexpr milliseconds kLong{3000};
  // The timer of a socket is in no list: its time is counted from the first snapshot.
  auto calls = timed_calls(kLong, false);
  for (int round = 0; round < 2; ++round) {
    wait_for(milliseconds{1400});
    for (TimedCall& call : calls) call.snapshot(true);
  }
  for (TimedCall& call : calls) call.expect_took(kLong, kLong + kSlack);
}

TEST_CASE("a timed call goes on after a snapshot that fails") {
  auto calls = timed_calls(kTimeout);
  wait_for(kHalf);
  for (TimedCall& call : calls) call.fail_to_snapshot();
  for (TimedCall& call : calls) call.expect_took(kTimeout, kTimeout + kSlack);
}

/// A message queue of the machine, which no process owns.
struct MessageQueue {
  int id = must(::msgget(IPC_PRIVATE, 0600), "msgget");
  ~MessageQueue() { ::msgctl(id, IPC_RMID, nullptr); }
};

TEST_CASE("msgrcv goes on after a snapshot and after a restore") {
  TemporaryFolder folder;
  const MessageQueue queue;
  Target target{"blocked_in_msgrcv", {std::to_string(queue.id)}};
  icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
  CHECK(target.ask("check?") == "ok");
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  Restored restored{folder / "image"};
  CHECK(restored.ask("check?") == "ok");
}

/// The line of a file of /proc.
std::string line_of(const std::string& path) {
  std::string line;
  std::getline(std::ifstream{path} >> std::ws, line);
  return line;
}

/// Inside write(2) on standard output.
void await_writing(pid_t pid) {
  const std::string folder = fmt::format("/proc/{}/", pid);
  const auto there = [&] {
    return line_of(folder + "syscall").starts_with("1 0x1 ") &&
           line_of(folder + "stat").find(") S ") != std::string::npos;
  };
  await(there, "it never waits for room");
}

TEST_CASE("a write to a pipe of others returns all of it after a snapshot and after a restore") {
  TemporaryFolder folder;
  Target target{"partial_writes"};
  // The first one makes the pipe larger.
  for (const auto& [length, kill] : {std::pair{200'000U, false}, std::pair{500'000U, true}}) {
    target.conversation().tell(fmt::format("shout {}", length));
    await_writing(target.pid());
    icecore::snapshot(target.pid(), folder / "image", {.kill = kill, .fsync = false});
    CHECK(target.conversation().hear() == std::string(length, 'x'));
    if (!kill) CHECK(target.conversation().hear() == "whole");
  }
  target.process().await_end();
  Restored restored{folder / "image"};
  CHECK(restored.conversation().hear() == "whole");
}

}  // namespace test::blocked_calls_test
