// SPDX-License-Identifier: Apache-2.0
//
// State: threads of every scheduling policy, with priorities, nice values, I/O priorities and timer
// slacks of their own.
#include <sched.h>
#include <sys/prctl.h>

#include "target.hpp"

using namespace target;

struct Attributes {
  std::uint32_t size = sizeof(Attributes), policy = 0;
  std::uint64_t flags = 0;
  std::int32_t nice = 0;
  std::uint32_t priority = 0;
  std::uint64_t runtime = 0, deadline = 0, period = 0;
};

static constexpr std::uint64_t kResetOnFork = 1;

static Attributes attributes() {
  Attributes now;
  must(::syscall(SYS_sched_getattr, 0, &now, sizeof now, 0), "sched_getattr");
  return now;
}

struct Kind {
  Attributes attributes;
  int io_priority = 0;
  unsigned long slack = 0;
};

static const std::vector<Kind>& kinds() {
  const auto of = [](std::uint32_t policy, std::uint32_t priority, std::int32_t nice,
                     std::uint64_t flags) {
    Attributes wanted;
    wanted.policy = policy;
    wanted.priority = priority;
    wanted.nice = nice;
    wanted.flags = flags;
    return wanted;
  };
  static const std::vector<Kind> all = {
      {of(SCHED_FIFO, 3, 0, 0), 2 << 13 | 6, 1234},
      {of(SCHED_RR, 5, 0, kResetOnFork), 3 << 13, 77'000},
      {of(SCHED_BATCH, 0, 4, 0), 0, 4321},
      {of(SCHED_IDLE, 0, 0, 0)},
      {of(SCHED_OTHER, 0, -3, kResetOnFork), 1 << 13 | 2},
      {of(SCHED_OTHER, 0, 0, 0)},
  };
  return all;
}

static void set_up(std::size_t index) {
  const Kind& kind = kinds()[index];
  Attributes wanted = kind.attributes;
  must(::syscall(SYS_sched_setattr, 0, &wanted, 0), "sched_setattr");
  if (kind.io_priority != 0) must(::syscall(SYS_ioprio_set, 1, 0, kind.io_priority), "ioprio_set");
  if (kind.slack != 0) must(::prctl(PR_SET_TIMERSLACK, kind.slack), "PR_SET_TIMERSLACK");
}

static void expect(std::size_t index, long slack_before) {
  const Kind& kind = kinds()[index];
  const Attributes now = attributes();
  const std::string name = "policy " + std::to_string(kind.attributes.policy) + ": ";
  require(now.policy == kind.attributes.policy, name + "is " + std::to_string(now.policy));
  require(now.priority == kind.attributes.priority, name + "another priority");
  require(now.nice == kind.attributes.nice, name + "another nice value");
  require((now.flags & kResetOnFork) == kind.attributes.flags, name + "reset on fork");
  require(raw(SYS_ioprio_get, 1, 0) == kind.io_priority, name + "another I/O priority");
  // Real-time threads have a slack of 0 whatever they set, and the set one again afterwards.
  const bool real_time = now.policy == SCHED_FIFO || now.policy == SCHED_RR;
  const long wanted = kind.slack != 0 ? static_cast<long>(kind.slack) : slack_before;
  if (!real_time) require(::prctl(PR_GET_TIMERSLACK) == wanted, name + "another timer slack");
}

int main() {
  Crew crew{kinds().size()};
  std::vector<long> slacks(crew.size());
  try {
    crew.each([&](std::size_t index) {
      slacks[index] = ::prctl(PR_GET_TIMERSLACK);
      set_up(index);
    });
  } catch (const Wrong& wrong) {
    return say(std::string{"skip: "} + wrong.what()), 0;
  }
  return serve([&] { crew.each([&](std::size_t index) { expect(index, slacks[index]); }); });
}
