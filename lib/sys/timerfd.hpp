// SPDX-License-Identifier: Apache-2.0
#pragma once

// timerfd_create(2) and signalfd(2): descriptors that tell of time and of signals.
//
// Kernel facts relied on here:
//  * fdinfo of a timerfd has its clock, the flags it was last set with, the time left, the interval
//  and
//    how often it has expired unread.
//  * A periodic timerfd that has expired unread stands still, and fdinfo says that no time is left;
//    reading it or timerfd_gettime counts the periods since and starts it again.
//  * Setting a timerfd forgets unread expirations; TFD_IOC_SET_TICKS (Linux 3.17, with
//    CONFIG_CHECKPOINT_RESTORE) gives them back.
//  * fdinfo of a signalfd has its mask.  A signalfd reads the signals of whoever reads it.

#include <cstdint>

#include "sys/files.hpp"

namespace icecore::sys {

struct TimerFdState {
  int clock = 0;
  int flags = 0;  ///< of timerfd_settime
  std::int64_t left_ns = 0;
  std::int64_t interval_ns = 0;
  std::uint64_t ticks = 0;
};

TimerFdState timerfd_state(const DescriptorInfo& info);
/// Time left, 0 when it is not armed; see above.
std::int64_t timerfd_left(const Fd& timer);
Fd make_timerfd(int clock);

/// ioctl(2) request that sets unread expirations.
extern const unsigned long kSetTicks;

std::uint64_t signalfd_mask(const DescriptorInfo& info);
Fd make_signalfd(std::uint64_t mask);

}  // namespace icecore::sys
