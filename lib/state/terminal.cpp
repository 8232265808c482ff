// SPDX-License-Identifier: Apache-2.0
#include "state/terminal.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/sysmacros.h>

#include <algorithm>

#include "sys/process.hpp"
#include "sys/procfs.hpp"

namespace icecore {
namespace {

/// Whether any of its descriptors leads to our terminal.
bool uses(const sys::ControllingTerminal& terminal, const state::ProcessT& image,
          const RestoreOptions& options) {
  const state::DescriptorsT& all = *image.descriptors;
  return std::ranges::any_of(all.descriptors, [&](const state::Descriptor& descriptor) {
    const auto* external = all.descriptions[descriptor.description()]->open.AsExternal();
    if (external == nullptr || options.external.contains(descriptor.number())) return false;
    if (descriptor.number() > 2) return external->controlling;
    const int stream = options.standard_streams[static_cast<std::size_t>(descriptor.number())];
    if (stream < 0 || !sys::is_open(stream)) return false;
    return terminal_device(sys::status(sys::duplicate(stream)), terminal.device) == terminal.device;
  });
}

}  // namespace

std::uint64_t terminal_device(const sys::FileStatus& status, std::uint64_t own) {
  const unsigned major = ::major(status.st_rdev);
  if (!S_ISCHR(status.st_mode)) return 0;
  if (status.st_rdev == ::makedev(5, 0)) return own;
  return major == 4 || major == 5 || (major >= 136 && major <= 143) ? status.st_rdev : 0;
}

bool stands_on_our_terminal(const state::ProcessT& image, const RestoreOptions& options) {
  if (!options.on_terminal || !image.terminal) return false;
  const auto own = sys::own_terminal();
  return own && uses(*own, image, options);
}

void give_terminal(const state::ProcessT& image, const RestoreOptions& options, pid_t pid,
                   const sys::Fd& process) {
  if (!stands_on_our_terminal(image, options)) return;
  const sys::Fd terminal = sys::open_file("/dev/tty", O_RDWR | O_NOCTTY);
  const auto ours = sys::read_stat(sys::current_process());
  if (!ours || sys::foreground_group(terminal) != ours->group) return;
  if (image.terminal->foreground) {
    sys::TerminalSettings settings;
    if (image.terminal->settings.size() == settings.size()) {
      std::ranges::copy(image.terminal->settings, settings.begin());
      sys::set_terminal_settings(terminal, settings);
    }
    if (image.group == image.pid || image.session == image.pid)
      sys::set_foreground_group(terminal, pid);
  }
  const sys::WindowSize now = sys::window_size(terminal);
  if (now.rows != image.terminal->rows || now.columns != image.terminal->columns)
    sys::send_signal(process, SIGWINCH);  // as the terminal does when its window changes
}

}  // namespace icecore
