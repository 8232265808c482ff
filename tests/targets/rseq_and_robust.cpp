// SPDX-License-Identifier: Apache-2.0
//
// State: what the kernel keeps for libc per thread: restartable sequences, the robust futex list,
// the address that is cleared when the thread ends.
#include <pthread.h>
#include <sched.h>
#include <sys/rseq.h>

#include <atomic>

#include "target.hpp"

using namespace target;

static pthread_mutex_t robust;

static void expect_live_rseq() {
  if (__rseq_size == 0) return;  // switched off by a tunable
  const auto* area = reinterpret_cast<const volatile struct rseq*>(
      static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset);
  cpu_set_t all;
  must(::sched_getaffinity(0, sizeof all, &all), "sched_getaffinity");
  for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &all)) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    must(::sched_setaffinity(0, sizeof one, &one), "sched_setaffinity");
    require(area->cpu_id == cpu, "rseq says CPU " + std::to_string(area->cpu_id));
  }
  must(::sched_setaffinity(0, sizeof all, &all), "sched_setaffinity");
}

static void expect_dead_owner() {
  require(::pthread_mutex_lock(&robust) == EOWNERDEAD, "the dead owner went unnoticed");
  ::pthread_mutex_consistent(&robust);
  ::pthread_mutex_unlock(&robust);
}

struct Holder {
  int end_pipe[2];
  std::atomic<bool> held = false;
  pthread_t thread;

  Holder() {
    must(::pipe2(end_pipe, O_CLOEXEC), "pipe");
    ::pthread_create(&thread, nullptr, run, this);
    await([&] { return held.load(); }, "the mutex was never held");
  }

  /// Ends the thread; pthread_join waits in a futex for the kernel to clear its thread id.
  void end_and_join() {
    must(::write(end_pipe[1], "x", 1), "write");
    require(::pthread_join(thread, nullptr) == 0, "pthread_join");
    ::close(end_pipe[0]);
    ::close(end_pipe[1]);
  }

  static void* run(void* self) {
    auto& holder = *static_cast<Holder*>(self);
    ::pthread_mutex_lock(&robust);
    holder.held = true;
    char byte;
    must(::read(holder.end_pipe[0], &byte, 1), "read");
    return nullptr;  // still holding it
  }
};

int main() {
  pthread_mutexattr_t attributes;
  ::pthread_mutexattr_init(&attributes);
  ::pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  ::pthread_mutex_init(&robust, &attributes);
  Crew crew{2};
  auto holder = std::make_unique<Holder>();
  return serve([&] {
    expect_live_rseq();
    crew.each([](std::size_t) { expect_live_rseq(); });
    holder->end_and_join();
    expect_dead_owner();
    holder = std::make_unique<Holder>();
  });
}
