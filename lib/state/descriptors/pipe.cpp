// SPDX-License-Identifier: Apache-2.0
//
// A pipe of which the process has both ends, or of which nobody has the other end any more: made
// anew, with its capacity and what is in it.
#include <fcntl.h>

#include "state/descriptors/room.hpp"

namespace icecore {
namespace {

bool is_pipe(const OpenDescription& open) { return open.link.starts_with("pipe:["); }

bool is_write_end(const OpenDescription& open) { return (open.flags & O_ACCMODE) == O_WRONLY; }

bool matches(const DescriptorCapture& all, const OpenDescription& open) {
  if (!is_pipe(open)) return false;
  const std::uint64_t inode = open.status.st_ino;
  return (all.readable_pipes.contains(inode) && all.writable_pipes.contains(inode)) ||
         sys::other_end_closed(open.copy);
}

state::OpenUnion capture(DescriptorCapture& all, const OpenDescription& open) {
  if ((open.flags & O_DIRECT) != 0)
    throw Error{Errc::unsupported, "pipe in packet mode (O_DIRECT): cannot be snapshotted yet"};
  const auto [at, fresh] =
      all.pipe_index.try_emplace(open.status.st_ino, static_cast<std::int32_t>(all.pipes.size()));
  if (fresh) {
    all.pipes.push_back(std::make_unique<state::PipeObjectT>());
    all.pipes.back()->capacity = sys::pipe_capacity(open.copy);
  }
  state::PipeObjectT& object = *all.pipes[static_cast<std::size_t>(at->second)];
  if (!is_write_end(open)) object.contents = sys::peek_pipe(open.copy);
  state::PipeT pipe;
  pipe.pipe = at->second;
  pipe.write_end = is_write_end(open);
  return opened(pipe);
}

sys::Fd rebuild(DescriptorRebuild& all, const state::DescriptionT& description, int) {
  const state::PipeT& pipe = *description.open.AsPipe();
  const auto [at, fresh] = all.pipes.try_emplace(pipe.pipe);
  sys::Pipe& ends = at->second;
  if (fresh) {
    const auto& object = *all.process.descriptors->pipes[static_cast<std::size_t>(pipe.pipe)];
    ends = sys::make_pipe();
    if (sys::pipe_capacity(ends.write_end) != object.capacity)
      sys::set_pipe_capacity(ends.write_end, object.capacity);
    // What was written in many small pieces may have taken more room than the same bytes in one.
    sys::fill_pipe(ends.write_end, object.contents);
  }
  // A second description of the same end comes from opening it by name, as it once did.
  const sys::Fd& end = pipe.write_end ? ends.write_end : ends.read_end;
  const int access = pipe.write_end ? O_WRONLY : O_RDONLY;
  sys::Fd fd =
      all.given_ends.emplace(pipe.pipe, pipe.write_end).second
          ? sys::duplicate(end.get())
          : sys::open_file(fmt::format("/proc/self/fd/{}", end.get()), access | O_NONBLOCK);
  sys::set_status_flags(fd, static_cast<int>(description.flags));
  return fd;
}

}  // namespace

const DescriptorRoom pipe_room{matches, capture, state::Open::Pipe, rebuild};

}  // namespace icecore
