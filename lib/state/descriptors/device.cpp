// SPDX-License-Identifier: Apache-2.0
//
// Devices without state: /dev/null, zero, full, random and urandom.
#include <fmt/format.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>

#include "state/descriptors/room.hpp"

namespace icecore {
namespace device {

bool is_stateless(dev_t device) {
  constexpr std::array kMinors{3U, 5U, 7U, 8U, 9U};
  return ::major(device) == 1 && std::ranges::find(kMinors, ::minor(device)) != kMinors.end();
}

bool matches(const DescriptorCapture&, const OpenDescription& open) {
  return S_ISCHR(open.status.st_mode) && is_stateless(open.status.st_rdev);
}

state::OpenUnion capture(DescriptorCapture&, const OpenDescription& open) {
  if (const auto named = sys::try_status(open.link);
      !named || named->st_rdev != open.status.st_rdev)
    throw Error{
        Errc::unsupported,
        fmt::format("{}: no name leads to the device any more; it could not be opened again",
                    open.link)};
  state::DeviceT device;
  device.path = open.link;
  device.device_number = open.status.st_rdev;
  return opened(std::move(device));
}

sys::Fd rebuild(DescriptorRebuild& all, const state::DescriptionT& description, int) {
  const state::DeviceT& device = *description.open.AsDevice();
  sys::Fd fd = sys::open_file(all.root + device.path, static_cast<int>(description.flags));
  if (sys::status(fd).st_rdev != device.device_number)
    throw Error{Errc::incompatible, fmt::format("{}: is another device here", device.path)};
  return fd;
}

}  // namespace device

const DescriptorRoom device_room{device::matches, device::capture, state::Open::Device,
                                 device::rebuild};

}  // namespace icecore
