// SPDX-License-Identifier: Apache-2.0
//
// State: a program that knows where its vdso lies, and asks it for the time all the time.
#include <sys/auxv.h>

#include <atomic>

#include "target.hpp"

using namespace target;

static std::int64_t monotonic_ns() {
  timespec now{};
  must(::clock_gettime(CLOCK_MONOTONIC, &now), "clock_gettime");
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

static std::atomic<std::uint64_t> asked = 0;
static std::atomic<bool> went_back = false;

static void ask_for_ever() {
  for (std::int64_t last = monotonic_ns();; ++asked) {
    const std::int64_t now = monotonic_ns();
    if (now < last) went_back = true;
    last = now;
  }
}

int main() {
  const auto* vdso = reinterpret_cast<const char*>(::getauxval(AT_SYSINFO_EHDR));
  if (vdso == nullptr) return say("skip: no vdso"), 0;
  std::thread{ask_for_ever}.detach();
  return serve([&] {
    require(std::memcmp(vdso, "\177ELF", 4) == 0, "the vdso is not where it was");
    const std::uint64_t before = asked;
    await([&] { return asked > before + 1000; }, "the vdso does not answer");
    require(!went_back, "the time went back");
    timespec by_call{};
    must(::syscall(SYS_clock_gettime, CLOCK_REALTIME, &by_call), "clock_gettime");
    require(std::time(nullptr) - by_call.tv_sec <= 1, "the vdso tells another time");
  });
}
