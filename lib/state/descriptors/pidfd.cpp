// SPDX-License-Identifier: Apache-2.0
//
// A pidfd of the process itself, or of one that has ended: any other that has ended takes its
// place. Others lead to processes that are not in the image.
#include <fcntl.h>

#include "state/descriptors/room.hpp"
#include "sys/process.hpp"

namespace icecore {
namespace pidfd {

constexpr int kOfThread = O_EXCL;  // PIDFD_THREAD

bool matches(const DescriptorCapture&, const OpenDescription& open) {
  return open.link == "anon_inode:[pidfd]" || open.link.starts_with("pidfd:");
}

state::OpenUnion capture(DescriptorCapture& all, const OpenDescription& open) {
  const std::string pid = open.info.field("Pid").value_or("?");
  const bool ended = pid == "-1";
  if (!ended && pid != std::to_string(all.capture.pid))
    throw Error{Errc::unsupported,
                fmt::format("pidfd of process {}: cannot be snapshotted, only one of the process "
                            "itself, or of one that has ended, can",
                            pid)};
  if ((open.flags & kOfThread) != 0)
    throw Error{Errc::unsupported, "pidfd of a thread (PIDFD_THREAD): cannot be snapshotted yet"};
  state::PidFdT pidfd;
  if (ended) pidfd.ended = open.status.st_ino;
  return opened(pidfd);
}

sys::Fd rebuild(DescriptorRebuild& all, const state::DescriptionT& description, int) {
  const std::uint64_t ended = description.open.AsPidFd()->ended;
  sys::Fd fd = sys::open_process(
      ended == 0 ? all.pid : all.ended_processes.try_emplace(ended).first->second.pid());
  sys::set_status_flags(fd, static_cast<int>(description.flags));
  return fd;
}

}  // namespace pidfd

const DescriptorRoom pidfd_room{pidfd::matches, pidfd::capture, state::Open::PidFd, pidfd::rebuild};

}  // namespace icecore
