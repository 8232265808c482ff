// SPDX-License-Identifier: Apache-2.0
//
// A timerfd: what was left of a relative time is left again; a point in time stays that point, and
// has passed when it has.
#include "sys/timerfd.hpp"

#include <sys/timerfd.h>

#include "state/descriptors/room.hpp"
#include "sys/time.hpp"

namespace icecore {
namespace timerfd {

bool matches(const DescriptorCapture&, const OpenDescription& open) {
  return open.link == "anon_inode:[timerfd]";
}

/// A periodic timer goes on while it is looked at.
sys::TimerFdState look_at(const DescriptorCapture& all, const OpenDescription& open) {
  sys::TimerFdState found = sys::timerfd_state(open.info);
  while (found.interval_ns != 0) {
    const std::int64_t left_ns = sys::timerfd_left(open.copy);
    const auto again = sys::timerfd_state(sys::DescriptorInfo{all.capture.pid, open.number});
    const bool same = again.ticks == found.ticks;
    found = again;
    found.left_ns = left_ns;
    if (same) break;
  }
  return found;
}

state::OpenUnion capture(DescriptorCapture& all, const OpenDescription& open) {
  const sys::TimerFdState found = look_at(all, open);
  state::TimerFdT timer;
  timer.clock = found.clock;
  timer.flags = static_cast<std::uint32_t>(found.flags);
  timer.interval_ns = found.interval_ns;
  timer.ticks = found.ticks;
  timer.expires_ns = found.left_ns;
  // The clock is read after what is left, so that it never expires early.
  if (found.left_ns != 0 && (found.flags & TFD_TIMER_ABSTIME) != 0)
    timer.expires_ns += sys::clock_ns_of(all.capture.pid, found.clock);
  return opened(timer);
}

sys::Fd rebuild(DescriptorRebuild&, const state::DescriptionT& description, int) {
  sys::Fd fd = sys::make_timerfd(description.open.AsTimerFd()->clock);
  sys::set_status_flags(fd, static_cast<int>(description.flags));
  return fd;
}

/// By the process itself, whose clocks may not be ours (time namespaces).
void finish(const DescriptorFinish& stage, const state::DescriptionT& description, int number) {
  const state::TimerFdT& timer = *description.open.AsTimerFd();
  const auto fd = static_cast<std::uint64_t>(number);
  const auto time = [](std::int64_t ns) {
    return ::timespec{ns / sys::kSecond, ns % sys::kSecond};
  };
  CallList& list = stage.calls.room(2, 128);
  const ::itimerspec when{.it_interval = time(timer.interval_ns),
                          .it_value = time(timer.expires_ns)};
  list.call("set a timerfd", SYS_timerfd_settime, {fd, timer.flags, list.put_value(when), 0});
  if (timer.ticks != 0)
    list.call("set the expirations of a timerfd", SYS_ioctl,
              {fd, sys::kSetTicks, list.put_value(timer.ticks)});
}

}  // namespace timerfd

const DescriptorRoom timerfd_room{timerfd::matches, timerfd::capture, state::Open::TimerFd,
                                  timerfd::rebuild, timerfd::finish};

}  // namespace icecore
