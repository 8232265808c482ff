// SPDX-License-Identifier: Apache-2.0
//
// A regular file, opened again by its name.  Its contents are in the image only if it has none
// (KeptFiles): else what the process may read must be unchanged, what it only writes must exist.
#include <fcntl.h>

#include "state/descriptors/room.hpp"
#include "sys/file_locks.hpp"

namespace icecore {
namespace regular_file {

bool matches(const DescriptorCapture&, const OpenDescription& open) {
  return S_ISREG(open.status.st_mode);
}

state::OpenUnion capture(DescriptorCapture& all, const OpenDescription& open) {
  state::RegularFileT file;
  const bool readable = (open.flags & O_ACCMODE) != O_WRONLY;
  const bool leased = sys::has_lease_for_writing(open.info);
  if (leased && open.status.st_nlink == 0)
    throw Error{Errc::unsupported,
                fmt::format("{}: a lease for writing is held on a file that has been deleted: "
                            "cannot be kept",
                            open.link)};
  file.file = all.capture.files.add(open.link, open.status, readable, open.place);
  if (leased) all.capture.files.mark_leased(file.file);
  if ((open.flags & O_TMPFILE) == O_TMPFILE) all.capture.files.mark_linkable(file.file);
  file.offset = sys::position(open.copy);
  return opened(file);
}

sys::Fd rebuild(DescriptorRebuild& all, const state::DescriptionT& description, int) {
  const state::RegularFileT& file = *description.open.AsRegularFile();
  sys::Fd fd = all.open_file(file.file, static_cast<int>(description.flags));
  sys::set_position(fd, file.offset);
  return fd;
}

}  // namespace regular_file

const DescriptorRoom regular_file_room{regular_file::matches, regular_file::capture,
                                       state::Open::RegularFile, regular_file::rebuild};

}  // namespace icecore
