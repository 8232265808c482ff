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

struct Known {
  unsigned minor;
  const char* path;
};
constexpr std::array kKnown{Known{3, "/dev/null"}, Known{5, "/dev/zero"}, Known{7, "/dev/full"},
                            Known{8, "/dev/random"}, Known{9, "/dev/urandom"}};

const Known* find_known(dev_t device) {
  const auto* const known = std::ranges::find(kKnown, ::minor(device), &Known::minor);
  return ::major(device) == 1 && known != kKnown.end() ? known : nullptr;
}

bool leads_to(const std::string& path, dev_t device) {
  const auto named = sys::try_status(path);
  return named && S_ISCHR(named->st_mode) && named->st_rdev == device;
}

bool matches(const DescriptorCapture&, const OpenDescription& open) {
  return S_ISCHR(open.status.st_mode) && find_known(open.status.st_rdev) != nullptr;
}

state::OpenUnion capture(DescriptorCapture&, const OpenDescription& open) {
  // Its own name may be gone, or have been made anew, as in a new /dev.
  constexpr std::string_view kDeleted = " (deleted)";
  const std::string_view link = open.link;
  const std::array<std::string, 3> names{
      open.link,
      std::string{link.ends_with(kDeleted) ? link.substr(0, link.size() - kDeleted.size()) : link},
      find_known(open.status.st_rdev)->path};
  const auto* const name = std::ranges::find_if(
      names, [&](const std::string& path) { return leads_to(path, open.status.st_rdev); });
  if (name == names.end())
    throw Error{
        Errc::unsupported,
        fmt::format("{}: no name leads to the device any more; it could not be opened again",
                    open.link)};
  state::DeviceT device;
  device.path = *name;
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
