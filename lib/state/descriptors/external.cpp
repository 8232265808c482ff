// SPDX-License-Identifier: Apache-2.0
//
// What leads outside the process: a terminal, a pipe or fifo whose other end others have, and as
// standard stream a socket or device too.  Standard streams are attached to those of the caller of
// restore, others to what the caller names.  The invocation file is that of the new invocation.
#include <fcntl.h>
#include <sys/sysmacros.h>

#include <type_traits>

#include "state/descriptors/room.hpp"
#include "state/invocation.hpp"

namespace icecore {
namespace {

bool is_standard(int number) { return number <= 2; }

bool is_terminal(const sys::FileStatus& status) {
  const unsigned major = ::major(status.st_rdev);
  return S_ISCHR(status.st_mode) && (major == 4 || major == 5 || (major >= 136 && major <= 143));
}

bool matches(const DescriptorCapture&, const OpenDescription& open) {
  const auto mode = open.status.st_mode;
  return is_terminal(open.status) || S_ISFIFO(mode) || S_ISSOCK(mode) ||
         (is_standard(open.number) && S_ISCHR(mode));
}

state::OpenUnion capture(DescriptorCapture&, const OpenDescription& open) {
  state::ExternalT external;
  external.what = open.link;
  external.standard = is_standard(open.number);
  return opened(std::move(external));
}

sys::Fd stream_of_caller(const std::array<int, 3>& streams, int number) {
  const int stream = streams[static_cast<std::size_t>(number)];
  if (stream < 0 || !sys::is_open(stream)) return sys::open_file("/dev/null", O_RDWR);
  return sys::duplicate(stream);
}

sys::Fd rebuild(DescriptorRebuild& all, const state::DescriptionT& description, int number) {
  const auto named = all.options.external.find(number);
  if (named == all.options.external.end()) {
    if (description.open.AsExternal()->standard && is_standard(number))
      return stream_of_caller(all.options.standard_streams, number);
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

}  // namespace

const DescriptorRoom external_room{matches, capture, state::Open::External, rebuild};

}  // namespace icecore
