// SPDX-License-Identifier: Apache-2.0
#include "sys/timerfd.hpp"

#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "sys/call.hpp"
#include "sys/time.hpp"

namespace icecore::sys {
namespace {

std::string required(const DescriptorInfo& info, const char* name, const char* kind) {
  auto text = info.field(name);
  if (!text)
    throw Error{Errc::unsupported, fmt::format("{}: this kernel does not tell its state", kind)};
  return *std::move(text);
}

/// "(seconds, nanoseconds)"
std::int64_t nanoseconds(const std::string& text) {
  long seconds = 0, rest = 0;
  if (std::sscanf(text.c_str(), "(%ld, %ld)", &seconds, &rest) != 2)
    throw Error{Errc::unsupported, "timerfd: this kernel does not tell its time"};
  return seconds * kSecond + rest;
}

}  // namespace

const unsigned long kSetTicks = _IOW('T', 0, std::uint64_t);

TimerFdState timerfd_state(const DescriptorInfo& info) {
  const auto field = [&](const char* name) { return required(info, name, "timerfd"); };
  return {.clock = std::atoi(field("clockid").c_str()),
          .flags = static_cast<int>(std::strtol(field("settime flags").c_str(), nullptr, 8)),
          .left_ns = nanoseconds(field("it_value")),
          .interval_ns = nanoseconds(field("it_interval")),
          .ticks = std::strtoull(field("ticks").c_str(), nullptr, 10)};
}

std::int64_t timerfd_left(const Fd& timer) {
  ::itimerspec left{};
  checked([&] { return ::timerfd_gettime(timer.get(), &left); }, "look at a timerfd");
  return left.it_value.tv_sec * kSecond + left.it_value.tv_nsec;
}

Fd make_timerfd(int clock) {
  return Fd{checked([&] { return ::timerfd_create(clock, TFD_CLOEXEC); },
                    "make a timerfd of clock {}", clock)};
}

std::uint64_t signalfd_mask(const DescriptorInfo& info) {
  return std::strtoull(required(info, "sigmask", "signalfd").c_str(), nullptr, 16);
}

Fd make_signalfd(std::uint64_t mask) {
  constexpr int kCloseOnExec = 02000000;
  return Fd{static_cast<int>(
      checked([&] { return ::syscall(SYS_signalfd4, -1, &mask, sizeof mask, kCloseOnExec); },
              "make a signalfd"))};
}

}  // namespace icecore::sys
