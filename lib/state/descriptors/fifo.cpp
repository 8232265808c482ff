// SPDX-License-Identifier: Apache-2.0
//
// A fifo of which the process has both ends: opened again by its name, with what was in it.  One
// that has been deleted is made anew, opened and deleted.
#include <fcntl.h>

#include "state/descriptors/deleted.hpp"
#include "state/descriptors/room.hpp"

namespace icecore {
namespace fifo {

bool matches(const DescriptorCapture& all, const OpenDescription& open) {
  const std::uint64_t inode = open.status.st_ino;
  return S_ISFIFO(open.status.st_mode) && !open.link.starts_with("pipe:[") &&
         all.readable_pipes.contains(inode) && all.writable_pipes.contains(inode);
}

state::OpenUnion capture(DescriptorCapture& all, const OpenDescription& open) {
  state::FifoT fifo;
  if (const auto path = path_of_deleted(open.link); path && open.status.st_nlink == 0) {
    refuse_unreachable(*path, open.copy);
    fifo.path = *path;
    fifo.deleted = true;
    fifo.mode = open.status.st_mode & 07777;
    fifo.user = open.status.st_uid;
    fifo.group = open.status.st_gid;
    fifo.pipe = capture_pipe(all, open);
    return opened(std::move(fifo));
  }
  const auto named = sys::try_status(open.link);
  if (!named || named->st_dev != open.status.st_dev || named->st_ino != open.status.st_ino)
    throw Error{Errc::unsupported,
                fmt::format("{}: the fifo has been deleted or replaced", open.link)};
  fifo.path = open.link;
  fifo.pipe = capture_pipe(all, open);
  return opened(std::move(fifo));
}

sys::Fd make_deleted(const std::string& root, const state::FifoT& fifo) {
  const NewName name{root, fifo.path};
  sys::make_fifo(name.path());
  sys::Fd made = sys::open_file(name.path(), O_RDWR | O_NONBLOCK);
  sys::set_owner_and_mode(name.path(), fifo.user, fifo.group, fifo.mode);
  sys::remove_file(name.path());
  return made;
}

sys::Fd rebuild(DescriptorRebuild& all, const state::DescriptionT& description, int number) {
  const state::FifoT& fifo = *description.open.AsFifo();
  const auto [at, fresh] = all.pipes.try_emplace(fifo.pipe);
  if (fresh) {
    // Open at both ends, so that none of the following waits for the other.
    at->second.write_end = fifo.deleted ? make_deleted(all.root, fifo)
                                        : sys::open_file(all.root + fifo.path, O_RDWR | O_NONBLOCK);
    if (!S_ISFIFO(sys::status(at->second.write_end).st_mode))
      throw Error{Errc::incompatible, fmt::format("fd {}: {}: is no fifo", number, fifo.path)};
    if (sys::bytes_waiting(at->second.write_end) != 0)
      throw Error{Errc::incompatible,
                  fmt::format("fd {}: fifo {}: is in use: somebody else's bytes are in it", number,
                              fifo.path)};
    fill_pipe(at->second.write_end,
              *all.process.descriptors->pipes[static_cast<std::size_t>(at->first)]);
  }
  const auto flags = static_cast<int>(description.flags);
  const std::string path = fmt::format("/proc/self/fd/{}", at->second.write_end.get());
  sys::Fd fd = sys::open_file(fifo.deleted ? path : all.root + fifo.path, flags | O_NONBLOCK);
  sys::set_status_flags(fd, flags);
  return fd;
}

}  // namespace fifo

const DescriptorRoom fifo_room{fifo::matches, fifo::capture, state::Open::Fifo, fifo::rebuild};

}  // namespace icecore
