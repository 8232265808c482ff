// SPDX-License-Identifier: Apache-2.0
//
// A regular file, opened again by its name.  Its contents are not in the image: what the process
// may read must be unchanged, what it only writes must exist.
#include <fcntl.h>

#include "state/descriptors/room.hpp"

namespace icecore {
namespace {

bool matches(const DescriptorCapture&, const OpenDescription& open) {
  return S_ISREG(open.status.st_mode) && !open.link.starts_with("/memfd:");
}

state::OpenUnion capture(DescriptorCapture& all, const OpenDescription& open) {
  if (open.info.field("lock"))
    throw Error{Errc::unsupported,
                fmt::format("{}: a file lock is held: cannot be snapshotted yet", open.link)};
  state::RegularFileT file;
  const bool readable = (open.flags & O_ACCMODE) != O_WRONLY;
  file.file = all.capture.files.add(open.link, open.status, readable);
  file.offset = sys::position(open.copy);
  return opened(file);
}

sys::Fd rebuild(DescriptorRebuild& all, const state::DescriptionT& description, int) {
  const state::RegularFileT& file = *description.open.AsRegularFile();
  const auto& path = all.process.files[static_cast<std::size_t>(file.file)]->path;
  sys::Fd fd = sys::open_file(all.root + path, static_cast<int>(description.flags));
  sys::set_position(fd, file.offset);
  return fd;
}

}  // namespace

const DescriptorRoom regular_file_room{matches, capture, state::Open::RegularFile, rebuild};

}  // namespace icecore
