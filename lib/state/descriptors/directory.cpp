// SPDX-License-Identifier: Apache-2.0
//
// A directory, opened again by its name, with its reading position.
#include "state/descriptors/room.hpp"

namespace icecore {
namespace directory {

bool matches(const DescriptorCapture&, const OpenDescription& open) {
  return S_ISDIR(open.status.st_mode);
}

state::OpenUnion capture(DescriptorCapture&, const OpenDescription& open) {
  const auto named = sys::try_status(open.link);
  if (!named || named->st_dev != open.status.st_dev || named->st_ino != open.status.st_ino)
    throw Error{Errc::unsupported,
                fmt::format("{}: the directory has been deleted or replaced", open.link)};
  state::DirectoryT directory;
  directory.path = open.link;
  directory.device = open.status.st_dev;
  directory.inode = open.status.st_ino;
  directory.offset = sys::position(open.copy);
  return opened(std::move(directory));
}

sys::Fd rebuild(DescriptorRebuild& all, const state::DescriptionT& description, int) {
  const state::DirectoryT& directory = *description.open.AsDirectory();
  sys::Fd fd = sys::open_file(all.root + directory.path, static_cast<int>(description.flags));
  if (directory.offset != 0) sys::set_position(fd, directory.offset);
  return fd;
}

}  // namespace directory

const DescriptorRoom directory_room{directory::matches, directory::capture, state::Open::Directory,
                                    directory::rebuild};

}  // namespace icecore
