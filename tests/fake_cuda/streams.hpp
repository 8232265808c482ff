// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "process.hpp"

namespace fake {

/// A queue and a thread that empties it: what is asynchronous really happens later.
struct Stream {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<Result()>> work;
  bool busy = false, ending = false;
  std::thread thread;

  Stream() : thread{[this] { run(); }} {}
  ~Stream() {
    {
      const std::lock_guard lock{mutex};
      ending = true;
      changed.notify_all();
    }
    thread.join();
  }

  Result add(std::function<Result()> job) {
    self.queued.fetch_add(1);
    const std::lock_guard lock{mutex};
    work.push_back(std::move(job));
    changed.notify_all();
    return Result::success;
  }

  bool idle() {
    const std::lock_guard lock{mutex};
    return work.empty() && !busy;
  }

  void synchronize() {
    std::unique_lock lock{mutex};
    changed.wait(lock, [this] { return work.empty() && !busy; });
  }

  void run() {
    std::unique_lock lock{mutex};
    for (;;) {
      changed.wait(lock, [this] { return !work.empty() || ending; });
      if (work.empty()) return;
      const auto job = std::move(work.front());
      work.pop_front();
      busy = true;
      lock.unlock();
      if (const Result r = job(); r != Result::success) self.sticky = static_cast<int>(r);
      lock.lock();
      busy = false;
      self.queued.fetch_sub(1);
      futex_wake_all(self.queued);
      changed.notify_all();
    }
  }
};

struct Event {
  std::mutex mutex;
  std::condition_variable changed;
  unsigned recorded = 0, reached = 0;
};

inline Result run_on(Stream* stream, std::function<Result()> job) {
  return stream != nullptr ? stream->add(std::move(job)) : job();
}

}  // namespace fake
