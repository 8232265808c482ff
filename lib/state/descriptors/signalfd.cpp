// SPDX-License-Identifier: Apache-2.0
//
// A signalfd: its mask.  The signals that it will give are pending in the process, not in it.
#include "state/descriptors/room.hpp"
#include "sys/timerfd.hpp"

namespace icecore {
namespace signalfd {

bool matches(const DescriptorCapture&, const OpenDescription& open) {
  return open.link == "anon_inode:[signalfd]";
}

state::OpenUnion capture(DescriptorCapture&, const OpenDescription& open) {
  state::SignalFdT signals;
  signals.mask = sys::signalfd_mask(open.info);
  return opened(signals);
}

sys::Fd rebuild(DescriptorRebuild&, const state::DescriptionT& description, int) {
  sys::Fd fd = sys::make_signalfd(description.open.AsSignalFd()->mask);
  sys::set_status_flags(fd, static_cast<int>(description.flags));
  return fd;
}

}  // namespace signalfd

const DescriptorRoom signalfd_room{signalfd::matches, signalfd::capture, state::Open::SignalFd,
                                   signalfd::rebuild};

}  // namespace icecore
