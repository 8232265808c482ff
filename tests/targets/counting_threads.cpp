// SPDX-License-Identifier: Apache-2.0
//
// State: COUNT threads that never wait: each counts, and knows its thread id and a secret of its
// own.
#include <atomic>

#include "target.hpp"

using namespace target;

struct Counter {
  std::atomic<std::uint64_t> count = 0;
  std::uint64_t seed = random_number();
  std::atomic<std::uint64_t> mixed = seed;  // pattern(seed, count), always
  pid_t tid = 0;
  std::atomic<bool> wrong = false;
};

static void count(Counter& counter) {
  counter.tid = static_cast<pid_t>(::syscall(SYS_gettid));
  for (;;) {
    const std::uint64_t next = counter.count + 1;
    counter.mixed = pattern(counter.seed, next);
    counter.count = next;
    if (next % 256 == 0) std::this_thread::yield();
    const bool same_thread = counter.tid == ::syscall(SYS_gettid);
    const bool same_memory = counter.mixed == pattern(counter.seed, counter.count);
    if (!same_thread || !same_memory) counter.wrong = true;
  }
}

int main(int argc, char** arguments) {
  std::vector<Counter> counters(argc > 1 ? std::strtoul(arguments[1], nullptr, 10) : 4);
  for (Counter& counter : counters) std::thread{count, std::ref(counter)}.detach();

  return serve([&] {
    for (Counter& counter : counters) {
      const std::uint64_t before = counter.count;
      await([&] { return counter.count > before + 10; }, "a thread stands still");
      require(!counter.wrong, "a thread lost its id or its memory");
    }
  });
}
