// SPDX-License-Identifier: Apache-2.0
//
// State: timers that count the CPU time of a process with one thread: what is left falls by the CPU
// time that it uses, and by nothing else, although the clocks themselves may begin at zero.  "cpu?"
// is answered with the CPU time that the process believes to have used, in ms, by all interfaces
// the most.
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/times.h>

#include <csignal>
#include <ctime>

#include "target.hpp"

using namespace target;

namespace {

constexpr std::int64_t kMs = 1'000'000;
constexpr std::int64_t kSecond = 1000 * kMs;
// The kernel counts what setitimer(2) waits for in ticks, and rounds up whenever one is set.
constexpr std::int64_t kSlack = 60 * kMs;

std::int64_t ns_of(const timespec& time) { return time.tv_sec * kSecond + time.tv_nsec; }
std::int64_t ns_of(const timeval& time) { return time.tv_sec * kSecond + time.tv_usec * 1000; }

std::int64_t clock_ns(clockid_t clock) {
  timespec now{};
  must(::clock_gettime(clock, &now), "clock_gettime");
  return ns_of(now);
}

std::int64_t used_ns() { return clock_ns(CLOCK_PROCESS_CPUTIME_ID); }

void use(std::int64_t ns) {
  volatile std::uint64_t work = 0;  // in user mode, for ITIMER_VIRTUAL
  for (const std::int64_t begin = used_ns(); used_ns() < begin + ns;)
    for (int i = 0; i < 100'000; ++i) work = work + 1;
}

std::string used_by_all_interfaces_ms() {
  rusage process{}, thread{};
  must(::getrusage(RUSAGE_SELF, &process), "getrusage");
  must(::getrusage(RUSAGE_THREAD, &thread), "getrusage");
  tms ticks{};
  must(::times(&ticks), "times");
  std::int64_t most = std::max(used_ns(), clock_ns(CLOCK_THREAD_CPUTIME_ID));
  for (const rusage& usage : {process, thread})
    most = std::max(most, ns_of(usage.ru_utime) + ns_of(usage.ru_stime));
  most = std::max<std::int64_t>(
      most, (ticks.tms_utime + ticks.tms_stime) * kSecond / ::sysconf(_SC_CLK_TCK));
  return std::to_string(most / kMs);
}

/// By setitimer or timer_create.
struct CpuTimer {
  std::string name;
  int which;  ///< of setitimer, or the id
  bool posix;
  std::int64_t last_ns = 0;

  std::int64_t left_ns() const {
    itimerval interval{};
    itimerspec spec{};
    must(posix ? ::syscall(SYS_timer_gettime, which, &spec)
               : ::syscall(SYS_getitimer, which, &interval),
         name);
    return posix ? ns_of(spec.it_value) : ns_of(interval.it_value);
  }
};

CpuTimer interval_timer(const std::string& name, int which) {
  const itimerval wanted{{}, {1000, 0}};
  must(::syscall(SYS_setitimer, which, &wanted, nullptr), name);
  return {name, which, false};
}

CpuTimer posix_timer(const std::string& name, clockid_t clock) {
  sigevent event{};
  event.sigev_notify = SIGEV_NONE;
  int id = -1;
  must(::syscall(SYS_timer_create, clock, &event, &id), name);
  const itimerspec wanted{{}, {1000, 0}};
  must(::syscall(SYS_timer_settime, id, 0, &wanted, nullptr), name);
  return {name, id, true};
}

}  // namespace

int main() {
  use(300 * kMs);
  std::vector<CpuTimer> timers{interval_timer("ITIMER_PROF", ITIMER_PROF),
                               interval_timer("ITIMER_VIRTUAL", ITIMER_VIRTUAL),
                               posix_timer("process", CLOCK_PROCESS_CPUTIME_ID),
                               posix_timer("thread", CLOCK_THREAD_CPUTIME_ID)};
  std::int64_t last_used = used_ns();
  for (CpuTimer& timer : timers) timer.last_ns = timer.left_ns();
  const auto check = [&] {
    const std::int64_t now = used_ns();
    const std::int64_t since = now >= last_used ? now - last_used : now;
    for (const CpuTimer& timer : timers) {
      const std::int64_t left = timer.left_ns();
      const std::string lost = std::to_string((timer.last_ns - left) / kMs) + " ms less left";
      require(left <= timer.last_ns + kSlack && left >= timer.last_ns - since - kSlack,
              timer.name + ": " + lost + ", of " + std::to_string(since / kMs) + " ms used");
    }
    for (CpuTimer& timer : timers) timer.last_ns = timer.left_ns();
    use(200 * kMs);
    for (CpuTimer& timer : timers) {
      const std::int64_t left = timer.left_ns();
      require(left <= timer.last_ns - 100 * kMs, timer.name + ": stands still");
      timer.last_ns = left;
    }
    last_used = used_ns();
  };
  return serve(check, {{"cpu?", [](auto&) { return used_by_all_interfaces_ms(); }}});
}
