// SPDX-License-Identifier: Apache-2.0
//
// A pipe of which the process has both ends, or of which nobody has the other end any more: made
// anew, with its capacity and what is in it, packets (O_DIRECT) apart.
#include <fcntl.h>

#include "state/descriptors/room.hpp"

namespace icecore {
namespace {

constexpr std::uint32_t kMaxPacket = 4096;

bool is_pipe(const OpenDescription& open) { return open.link.starts_with("pipe:["); }

bool is_write_end(const OpenDescription& open) { return (open.flags & O_ACCMODE) == O_WRONLY; }

namespace pipe {

bool matches(const DescriptorCapture& all, const OpenDescription& open) {
  if (!is_pipe(open)) return false;
  const std::uint64_t inode = open.status.st_ino;
  return (all.readable_pipes.contains(inode) && all.writable_pipes.contains(inode)) ||
         sys::other_end_closed(open.copy);
}

state::OpenUnion capture(DescriptorCapture& all, const OpenDescription& open) {
  state::PipeT pipe;
  pipe.pipe = capture_pipe(all, open);
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
    fill_pipe(ends.write_end, object);
  }
  // A second description of the same end comes from opening it by name, as it once did.
  const sys::Fd& end = pipe.write_end ? ends.write_end : ends.read_end;
  const int access = static_cast<int>(description.flags) & O_ACCMODE;
  sys::Fd fd =
      access != O_RDWR && all.given_ends.emplace(pipe.pipe, pipe.write_end).second
          ? sys::duplicate(end.get())
          : sys::open_file(fmt::format("/proc/self/fd/{}", end.get()), access | O_NONBLOCK);
  sys::set_status_flags(fd, static_cast<int>(description.flags));
  return fd;
}

}  // namespace pipe
}  // namespace

std::int32_t capture_pipe(DescriptorCapture& all, const OpenDescription& open) {
  const auto [at, fresh] =
      all.pipe_index.try_emplace(open.status.st_ino, static_cast<std::int32_t>(all.pipes.size()));
  if (fresh) {
    all.pipes.push_back(std::make_unique<state::PipeObjectT>());
    all.pipes.back()->capacity = sys::pipe_capacity(open.copy);
  }
  state::PipeObjectT& object = *all.pipes[static_cast<std::size_t>(at->second)];
  if (is_write_end(open)) {
    object.packet_mode |= (open.flags & O_DIRECT) != 0;
    return at->second;
  }
  sys::PipeContents contents = sys::peek_pipe(open.copy);
  object.contents = std::move(contents.bytes);
  object.packets = std::move(contents.packets);
  return at->second;
}

void refuse_mixed_pipes(const DescriptorCapture& all) {
  for (const auto& pipe : all.pipes) {
    if (!pipe->packet_mode && pipe->packets.size() <= 1) {
      pipe->packets.clear();
      continue;
    }
    pipe->packet_mode = true;
    for (const std::uint32_t bytes : pipe->packets)
      if (bytes > kMaxPacket)
        throw Error{Errc::unsupported,
                    "a pipe holds both packets (O_DIRECT) and other bytes: cannot be kept"};
  }
}

void fill_pipe(const sys::Fd& write_end, const state::PipeObjectT& pipe) {
  if (sys::pipe_capacity(write_end) != pipe.capacity)
    sys::set_pipe_capacity(write_end, pipe.capacity);
  // What was written in many small pieces may have taken more room than the same bytes in one.
  if (pipe.packets.empty()) return sys::fill_pipe(write_end, pipe.contents);
  const int flags = sys::status_flags(write_end);
  sys::set_status_flags(write_end, flags | O_DIRECT);
  auto left = std::span{pipe.contents};
  for (const std::uint32_t bytes : pipe.packets) {
    sys::fill_pipe(write_end, left.first(bytes));
    left = left.subspan(bytes);
  }
  sys::set_status_flags(write_end, flags);
}

const DescriptorRoom pipe_room{pipe::matches, pipe::capture, state::Open::Pipe, pipe::rebuild};

}  // namespace icecore
