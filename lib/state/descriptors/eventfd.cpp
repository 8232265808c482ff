// SPDX-License-Identifier: Apache-2.0
//
// An eventfd: its count, and whether it counts down by one (EFD_SEMAPHORE; Linux 6.5 tells).
#include <cstdlib>

#include "state/descriptors/room.hpp"

namespace icecore {
namespace eventfd {

bool matches(const DescriptorCapture&, const OpenDescription& open) {
  return open.link == "anon_inode:[eventfd]";
}

state::OpenUnion capture(DescriptorCapture&, const OpenDescription& open) {
  const auto count = open.info.field("eventfd-count");
  const auto semaphore = open.info.field("eventfd-semaphore");
  if (!count || !semaphore)
    throw Error{Errc::unsupported, "eventfd: this kernel does not tell its state"};
  state::EventFdT event;
  event.count = std::strtoull(count->c_str(), nullptr, 16);
  event.semaphore = *semaphore == "1";
  return opened(event);
}

sys::Fd rebuild(DescriptorRebuild&, const state::DescriptionT& description, int) {
  const state::EventFdT& event = *description.open.AsEventFd();
  sys::Fd fd = sys::make_eventfd(event.count, event.semaphore);
  sys::set_status_flags(fd, static_cast<int>(description.flags));
  return fd;
}

}  // namespace eventfd

const DescriptorRoom eventfd_room{eventfd::matches, eventfd::capture, state::Open::EventFd,
                                  eventfd::rebuild};

}  // namespace icecore
