// SPDX-License-Identifier: Apache-2.0
//
// A directory, opened again by its name, with its reading position.  One that has been deleted is
// empty for ever: another one is made, opened and deleted.
#include <fcntl.h>

#include "state/descriptors/deleted.hpp"
#include "state/descriptors/room.hpp"

namespace icecore {
namespace directory {

bool matches(const DescriptorCapture&, const OpenDescription& open) {
  return S_ISDIR(open.status.st_mode);
}

state::OpenUnion capture(DescriptorCapture&, const OpenDescription& open) {
  state::DirectoryT directory;
  directory.device = open.status.st_dev;
  directory.inode = open.status.st_ino;
  if (const auto path = path_of_deleted(open.link); path && open.status.st_nlink == 0) {
    refuse_unreachable(*path, open.copy);
    directory.path = *path;
    directory.deleted = true;
    directory.mode = open.status.st_mode & 07777;
    directory.user = open.status.st_uid;
    directory.group = open.status.st_gid;
    return opened(std::move(directory));
  }
  const auto named = sys::try_status(open.link);
  if (!named || named->st_dev != open.status.st_dev || named->st_ino != open.status.st_ino)
    throw Error{Errc::unsupported,
                fmt::format("{}: the directory has been deleted or replaced", open.link)};
  directory.path = open.link;
  directory.offset = sys::position(open.copy);
  return opened(std::move(directory));
}

sys::Fd make_deleted(const std::string& root, const state::DirectoryT& directory) {
  const NewName name{root, directory.path};
  sys::make_directory(name.path());
  sys::Fd made = sys::open_file(name.path(), O_RDONLY | O_DIRECTORY);
  sys::set_owner_and_mode(name.path(), directory.user, directory.group, directory.mode);
  sys::remove_directory(name.path());
  return made;
}

sys::Fd rebuild(DescriptorRebuild& all, const state::DescriptionT& description, int) {
  const state::DirectoryT& directory = *description.open.AsDirectory();
  if (directory.deleted) {
    sys::Fd& made = all.deleted_directories[{directory.device, directory.inode}];
    if (!made) made = make_deleted(all.root, directory);
    return sys::open_file(fmt::format("/proc/self/fd/{}", made.get()),
                          static_cast<int>(description.flags));
  }
  sys::Fd fd = sys::open_file(all.root + directory.path, static_cast<int>(description.flags));
  if (directory.offset != 0) sys::set_position(fd, directory.offset);
  return fd;
}

}  // namespace directory

const DescriptorRoom directory_room{directory::matches, directory::capture, state::Open::Directory,
                                    directory::rebuild};

}  // namespace icecore
