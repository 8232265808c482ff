// SPDX-License-Identifier: Apache-2.0
//
// A thread inside one blocking system call, and the questions about it:
//   "check?"     it has not returned by itself; then lets it return and looks at the result
//   "block MS"   enters the call once more on another thread, with that much time
//   "outcome?"   waits for that one; says "ok MS" with how long it really took, by CLOCK_MONOTONIC
#pragma once

#include <atomic>

#include "target.hpp"

namespace target {

struct Wait {
  long number;                                ///< of the system call
  std::function<long(long timeout_ms)> call;  ///< -errno or the result; -1: no end in sight
  std::function<void()> release = {};         ///< makes it return; empty: nothing but time does
  long released = 0;                          ///< what it returns then
  long timed_out = 0;                         ///< what it returns when its time is over
};

/// One call under way on a thread of its own.
class Blocked {
 public:
  /// Returns once the thread is inside the call.
  Blocked(const Wait& wait, long timeout_ms) {
    std::thread{[this, call = wait.call, timeout_ms] { run(call, timeout_ms); }}.detach();
    // It may be snapshotted at once, and then goes on in restart_syscall.
    await([&] { return inside(wait.number) || inside(SYS_restart_syscall); },
          "the thread never blocked");
  }

  /// Waits until the thread is inside the call again.  It may be on its way there when it was
  /// stopped and runs on, and some ways of waking it would then be missed.
  void await_inside(long number) const {
    const auto there = [&] { return returned() || inside(number) || inside(SYS_restart_syscall); };
    await(there, "the thread is not inside its call");
  }

  bool returned() const { return returned_; }
  pid_t tid() const { return tid_; }

  /// Once the thread has ended: its end frees memory, for which libc may even map some.
  long result() const {
    await([&] { return returned(); }, "the call never returned");
    await([&] { return ::access(task().c_str(), F_OK) == -1; }, "the thread never ended");
    return result_;
  }

  std::int64_t took_ms() const { return took_ms_; }

 private:
  void run(const std::function<long(long)>& call, long timeout_ms) {
    const auto begin = std::chrono::steady_clock::now();
    tid_ = static_cast<pid_t>(::syscall(SYS_gettid));
    result_ = call(timeout_ms);
    const auto took = std::chrono::steady_clock::now() - begin;
    took_ms_ = std::chrono::duration_cast<std::chrono::milliseconds>(took).count();
    returned_ = true;
  }

  /// Asleep in the call: a thread that is only stopped in it, or on its way, cannot be woken yet.
  bool inside(long number) const {
    if (tid_ == 0) return false;
    return read_file(task() + "/syscall").starts_with(std::to_string(number) + " ") &&
           read_file(task() + "/stat").find(") S ") != std::string::npos;
  }

  std::string task() const { return "/proc/self/task/" + std::to_string(tid_); }

  std::atomic<pid_t> tid_ = 0;
  std::atomic<bool> returned_ = false;
  long result_ = 0;
  std::int64_t took_ms_ = 0;
};

inline std::string said(long result) {
  return result < 0 ? std::strerror(static_cast<int>(-result)) : std::to_string(result);
}

inline void expect_result(const Blocked& blocked, long expected) {
  const long result = blocked.result();
  require(result == expected, "returned " + said(result) + ", not " + said(expected));
}

inline int serve_wait(const Wait& wait) {
  auto endless = std::make_shared<std::unique_ptr<Blocked>>(new Blocked{wait, -1});
  auto timed = std::make_shared<std::unique_ptr<Blocked>>();

  const auto check = [=] {
    (*endless)->await_inside(wait.number);
    if ((*endless)->returned())
      throw Wrong{"returned " + said((*endless)->result()) + " by itself"};
    if (!wait.release) return;
    wait.release();
    expect_result(**endless, wait.released);
    endless->reset(new Blocked{wait, -1});
  };
  const auto block = [=](const std::string& ms) {
    timed->reset(new Blocked{wait, std::stol(ms)});
    return "blocked";
  };
  const auto outcome = [=](auto&) {
    expect_result(**timed, wait.timed_out);
    return "ok " + std::to_string((*timed)->took_ms());
  };
  return serve(check, {{"block", block}, {"outcome?", outcome}});
}

inline timespec to_timespec(std::int64_t ms) { return {ms / 1000, ms % 1000 * 1'000'000}; }

/// A call that reads its timeout may read another one for a moment, which must not stay.
inline void expect_untouched(const timespec& timeout, std::int64_t ms) {
  const timespec wanted = to_timespec(ms);
  if (timeout.tv_sec == wanted.tv_sec && timeout.tv_nsec == wanted.tv_nsec) return;
  say("wrong: the program's timeout is another one");
  std::abort();
}

/// The time of CLOCK_MONOTONIC `ms` from now.
inline timespec monotonic_in(std::int64_t ms) {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  const std::int64_t nanoseconds = time.tv_nsec + ms % 1000 * 1'000'000;
  return {time.tv_sec + ms / 1000 + nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000};
}

/// A pipe to wait for.
struct WaitPipe {
  int ends[2];
  WaitPipe() { must(::pipe2(ends, O_CLOEXEC), "pipe"); }
  void fill() const { must(::write(ends[1], "x", 1), "write to the pipe"); }
  void drain() const {
    char byte;
    must(::read(ends[0], &byte, 1), "read from the pipe");
  }
};

constexpr long kHourMs = 3'600'000;

}  // namespace target
