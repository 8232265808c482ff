// SPDX-License-Identifier: Apache-2.0
//
// Files that the kernel makes up: /proc, /sys, control groups.  They are opened again by their
// names; what they say is not compared.  Those of the process itself become those of the new one.
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "state/descriptors/room.hpp"
#include "sys/procfs.hpp"

namespace icecore {
namespace kernel_file {

constexpr std::uint64_t kMessageQueues = 0x19800202;  // MQUEUE_MAGIC
constexpr std::uint64_t kNamespaces = 0x6e736673;     // NSFS_MAGIC

bool matches(const DescriptorCapture&, const OpenDescription& open) {
  const auto mode = open.status.st_mode;
  if (::major(open.status.st_dev) != 0 || (!S_ISREG(mode) && !S_ISDIR(mode))) return false;
  constexpr std::array<std::uint64_t, 6> kMadeUp{kNamespaces,         PROC_SUPER_MAGIC,
                                                 SYSFS_MAGIC,         CGROUP_SUPER_MAGIC,
                                                 CGROUP2_SUPER_MAGIC, kMessageQueues};
  return std::ranges::find(kMadeUp, sys::file_system_type(open.copy)) != kMadeUp.end();
}

/// The process whose file it is; 0: none.
long process_of(const std::string& path) {
  constexpr std::string_view kStart = "/proc/";
  return path.starts_with(kStart) ? std::strtol(path.c_str() + kStart.size(), nullptr, 10) : 0;
}

void refuse_others(const Capture& capture, const std::string& path) {
  const long process = process_of(path);
  if (process != 0 && process != capture.pid)
    throw Error{Errc::unsupported, fmt::format("{}: of another process: cannot be kept", path)};
  const std::string threads = fmt::format("/proc/{}/task/", capture.pid);
  if (path.starts_with(threads) && path != threads + std::to_string(capture.pid) &&
      !path.starts_with(threads + std::to_string(capture.pid) + "/"))
    throw Error{Errc::unsupported, fmt::format("{}: of a thread: cannot be kept yet", path)};
}

/// "net:[4026531840]" is a name of one in which the process lives, or nothing leads there.
std::string path_of_namespace(const Capture& capture, const std::string& link) {
  const std::string path =
      fmt::format("/proc/{}/ns/{}", capture.pid, link.substr(0, link.find(':')));
  if (sys::try_read_link(path) != link)
    throw Error{
        Errc::unsupported,
        fmt::format("{}: a namespace in which the process does not live: cannot be kept", link)};
  return path;
}

state::OpenUnion capture(DescriptorCapture& all, const OpenDescription& open) {
  if (sys::file_system_type(open.copy) == kMessageQueues)
    throw Error{Errc::unsupported,
                fmt::format("{}: POSIX message queue: cannot be snapshotted", open.link)};
  if (sys::file_system_type(open.copy) == kNamespaces) {
    state::KernelFileT file;
    file.path = path_of_namespace(all.capture, open.link);
    return opened(std::move(file));
  }
  refuse_others(all.capture, open.link);
  if (!sys::try_status(open.link))
    throw Error{Errc::unsupported, fmt::format("{}: no longer exists", open.link)};
  state::KernelFileT file;
  file.path = open.link;
  file.offset = sys::position(open.copy);
  return opened(std::move(file));
}

sys::Fd rebuild(DescriptorRebuild& all, const state::DescriptionT& description, int) {
  return sys::open_file(all.root + description.open.AsKernelFile()->path,
                        static_cast<int>(description.flags));
}

/// When the process looks like itself: a position counts the bytes that came before it.
void finish(const DescriptorFinish& stage, const state::DescriptionT& description, int number) {
  if (const std::uint64_t offset = description.open.AsKernelFile()->offset; offset != 0)
    stage.calls.call("set the position in a file of the kernel", SYS_lseek,
                     {static_cast<std::uint64_t>(number), offset, SEEK_SET});
}

}  // namespace kernel_file

const DescriptorRoom kernel_file_room{kernel_file::matches, kernel_file::capture,
                                      state::Open::KernelFile, kernel_file::rebuild,
                                      kernel_file::finish};

}  // namespace icecore
