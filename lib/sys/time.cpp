// SPDX-License-Identifier: Apache-2.0
#include "sys/time.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <sstream>
#include <string>

#include "sys/call.hpp"
#include "sys/files.hpp"
#include "sys/procfs.hpp"

namespace icecore::sys {
namespace {

struct Offsets {
  std::int64_t monotonic_ns = 0;
  std::int64_t boottime_ns = 0;
};

/// Of the namespace in which the children of a process will live; those of its own are the same,
/// unless it has just changed that.
Offsets offsets_of(const std::string& process) {
  Offsets offsets;
  std::istringstream lines{
      try_read_file(fmt::format("/proc/{}/timens_offsets", process)).value_or("")};
  std::string clock;
  for (std::int64_t seconds = 0, ns = 0; lines >> clock >> seconds >> ns;)
    (clock == "monotonic" ? offsets.monotonic_ns : offsets.boottime_ns) = seconds * kSecond + ns;
  return offsets;
}

std::string line(const char* clock, std::int64_t ns) {
  std::int64_t seconds = ns / kSecond, rest = ns % kSecond;
  if (rest < 0) --seconds, rest += kSecond;
  return fmt::format("{} {} {}\n", clock, seconds, rest);
}

}  // namespace

std::int64_t clock_ns(int clock) {
  ::timespec time{};
  checked([&] { return ::clock_gettime(clock, &time); }, "read clock {}", clock);
  return time.tv_sec * kSecond + time.tv_nsec;
}

std::int64_t clock_ns_of(pid_t pid, int clock) {
  const bool monotonic =
      clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_RAW || clock == CLOCK_MONOTONIC_COARSE;
  const bool boottime = clock == CLOCK_BOOTTIME || clock == CLOCK_BOOTTIME_ALARM;
  const std::int64_t ours = clock_ns(clock);
  if (!monotonic && !boottime) return ours;
  const Offsets here = offsets_of("self"), there = offsets_of(std::to_string(pid));
  return ours + (monotonic ? there.monotonic_ns - here.monotonic_ns
                           : there.boottime_ns - here.boottime_ns);
}

bool can_choose_timer_ids() noexcept {
  constexpr int kRestoreIds = 77, kAsk = 2;
  return ::prctl(kRestoreIds, kAsk, 0, 0, 0) >= 0;
}

void set_clocks_of_children_forward(std::int64_t monotonic_ns, std::int64_t boottime_ns) {
  const Offsets own = offsets_of("self");
  checked([] { return ::unshare(CLONE_NEWTIME); },
          "make a time namespace, in which the clocks of the process do not go back");
  const std::string path = fmt::format("/proc/{}/timens_offsets", ::gettid());
  const std::string text = line("monotonic", own.monotonic_ns + monotonic_ns) +
                           line("boottime", own.boottime_ns + boottime_ns);
  const Fd file{
      checked([&] { return ::open(path.c_str(), O_WRONLY | O_CLOEXEC); }, "open {}", path)};
  checked([&] { return ::write(file.get(), text.data(), text.size()); }, "write {}", path);
}

}  // namespace icecore::sys
