// SPDX-License-Identifier: Apache-2.0
//
// State: what prctl, personality and sched_setaffinity set, and the score for the OOM killer.
#include <fcntl.h>
#include <sched.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "target.hpp"

using namespace target;

/// Who has no privileges may not look into a process that is not dumpable.
static const int dumpable = ::geteuid() == 0 ? 0 : 1;

static void set_oom_score() {
  const int file =
      static_cast<int>(must(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC), "open"));
  must(::write(file, "321", 3), "oom_score_adj");
  ::close(file);
}

static void set_up() {
  set_oom_score();
  must(::personality(ADDR_NO_RANDOMIZE), "personality");
  must(::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), "PR_SET_THP_DISABLE");
  must(::prctl(PR_SET_CHILD_SUBREAPER, 1), "PR_SET_CHILD_SUBREAPER");
  must(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
  must(::prctl(PR_SET_TIMERSLACK, 123'456, 0, 0, 0), "PR_SET_TIMERSLACK");
  must(::setpriority(PRIO_PROCESS, 0, 7), "setpriority");
  must(::prctl(PR_SET_DUMPABLE, dumpable), "PR_SET_DUMPABLE");
}

static void expect() {
  int subreaper = 0;
  must(::prctl(PR_GET_CHILD_SUBREAPER, &subreaper), "PR_GET_CHILD_SUBREAPER");
  require(::personality(0xffffffff) == ADDR_NO_RANDOMIZE, "personality");
  require(::prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1, "THP_DISABLE");
  require(subreaper == 1, "CHILD_SUBREAPER");
  require(::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1, "NO_NEW_PRIVS");
  require(::prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0) == 123'456, "TIMERSLACK");
  require(::getpriority(PRIO_PROCESS, 0) == 7, "nice value");
  require(::prctl(PR_GET_DUMPABLE) == dumpable, "dumpable");
  require(read_file("/proc/self/oom_score_adj") == "321\n", "oom_score_adj");
}

/// Binds the calling thread to the first CPU that it may use.
static cpu_set_t bind_to_first() {
  cpu_set_t all, one;
  must(::sched_getaffinity(0, sizeof all, &all), "sched_getaffinity");
  CPU_ZERO(&one);
  for (unsigned cpu = 0; CPU_COUNT(&one) == 0; ++cpu)
    if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
  must(::sched_setaffinity(0, sizeof one, &one), "sched_setaffinity");
  return one;
}

int main() {
  set_up();
  Crew crew{1};
  cpu_set_t bound;
  crew.each([&](std::size_t) { bound = bind_to_first(); });
  return serve([&] {
    expect();
    crew.each([&](std::size_t) {
      cpu_set_t now;
      must(::sched_getaffinity(0, sizeof now, &now), "sched_getaffinity");
      require(CPU_EQUAL(&now, &bound), "another affinity");
    });
  });
}
