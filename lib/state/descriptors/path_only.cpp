// SPDX-License-Identifier: Apache-2.0
//
// O_PATH: a place in the file system, not opened.
#include <fcntl.h>

#include "state/descriptors/room.hpp"

namespace icecore {
namespace path_only {

bool matches(const DescriptorCapture&, const OpenDescription& open) {
  return (open.flags & O_PATH) != 0;
}

state::OpenUnion capture(DescriptorCapture&, const OpenDescription& open) {
  const auto named = sys::try_link_status(open.link);
  if (!named || named->st_dev != open.status.st_dev || named->st_ino != open.status.st_ino)
    throw Error{Errc::unsupported,
                fmt::format("{}: O_PATH: no name leads there any more", open.link)};
  state::PathOnlyT place;
  place.path = open.link;
  place.mode = open.status.st_mode;
  return opened(std::move(place));
}

sys::Fd rebuild(DescriptorRebuild& all, const state::DescriptionT& description, int) {
  const state::PathOnlyT& place = *description.open.AsPathOnly();
  sys::Fd fd = sys::open_file(all.root + place.path, static_cast<int>(description.flags));
  if ((sys::status(fd).st_mode & S_IFMT) != (place.mode & S_IFMT))
    throw Error{Errc::incompatible, fmt::format("{}: is of another type here", place.path)};
  return fd;
}

}  // namespace path_only

const DescriptorRoom path_only_room{path_only::matches, path_only::capture, state::Open::PathOnly,
                                    path_only::rebuild};

}  // namespace icecore
