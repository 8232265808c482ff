// SPDX-License-Identifier: Apache-2.0
//
// What leads outside the process: a terminal, a pipe or fifo whose other end others have, and as
// standard stream a socket or device too.  Standard streams are attached to those of the caller of
// restore, others to what the caller names.  The invocation file is that of the new invocation.
#include <fcntl.h>

#include <type_traits>

#include "state/descriptors/room.hpp"
#include "state/invocation.hpp"
#include "state/terminal.hpp"
#include "sys/procfs.hpp"
#include "sys/terminal.hpp"

namespace icecore {
namespace external {

bool is_standard(int number) { return number <= 2; }

bool matches(const DescriptorCapture&, const OpenDescription& open) {
  const auto mode = open.status.st_mode;
  return terminal_device(open.status, 1) != 0 || S_ISFIFO(mode) || S_ISSOCK(mode) ||
         (is_standard(open.number) && S_ISCHR(mode));
}

state::OpenUnion capture(DescriptorCapture& all, const OpenDescription& open) {
  const auto stat = sys::read_stat(all.capture.pid);
  const std::uint64_t controlling = stat ? stat->terminal : 0;
  const std::uint64_t device = terminal_device(open.status, controlling);
  if (device != 0 && device == controlling && !all.terminal)
    throw Error{Errc::unsupported,
                fmt::format("{}: is a pseudo terminal of the process itself, opened by that name: "
                            "cannot be kept",
                            open.link)};
  state::ExternalT external;
  external.what = open.link;
  external.standard = is_standard(open.number);
  external.controlling = device != 0 && device == controlling;
  return opened(std::move(external));
}

sys::Fd stream_of_caller(const std::array<int, 3>& streams, int number) {
  const int stream = streams[static_cast<std::size_t>(number)];
  if (stream < 0 || !sys::is_open(stream)) return sys::open_file("/dev/null", O_RDWR);
  return sys::duplicate(stream);
}

sys::Fd rebuild(DescriptorRebuild& all, const state::DescriptionT& description, int number) {
  const auto named = all.options.external.find(number);
  const auto& external = *description.open.AsExternal();
  const auto own_terminal = sys::own_terminal();
  if (named == all.options.external.end()) {
    if (description.open.AsExternal()->standard && is_standard(number))
      return stream_of_caller(all.options.standard_streams, number);
    if (external.controlling && own_terminal) {
      const bool by_name = external.what == "/dev/tty";
      return sys::open_file(all.root + (by_name ? external.what : own_terminal->path),
                            static_cast<int>(description.flags) | O_NOCTTY);
    }
    if (is_invocation_file(description.open.AsExternal()->what))
      return new_invocation_file(all.options.invocation);
    throw Error{Errc::incompatible, fmt::format("fd {}: led outside the process ({})", number,
                                                description.open.AsExternal()->what)};
  }
  return std::visit(
      [&](const auto& target) {
        using Target = std::decay_t<decltype(target)>;
        if constexpr (std::is_same_v<Target, External::Close>)
          return sys::Fd{};
        else if constexpr (std::is_same_v<Target, int>)
          return sys::duplicate(target);
        else
          return sys::open_file(all.root + target.string(), static_cast<int>(description.flags));
      },
      named->second.target);
}

}  // namespace external

const DescriptorRoom external_room{external::matches, external::capture, state::Open::External,
                                   external::rebuild};

}  // namespace icecore
