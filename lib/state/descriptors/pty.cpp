// SPDX-License-Identifier: Apache-2.0
//
// A pair of pseudo terminals of which the process has the master, and nobody else the slave: made
// anew, under its number where that is free, with settings, window size, modes, what waits in it,
// and its output stopped if it was.
//
// What waits can only be found by taking it, so it is put back at once: input as if it were typed,
// under settings that let every byte through and no others see it (no echo, no signals), with the
// ends of lines where they were.
//
// A slave without its master is hung up, and has nothing else left.
#include <asm/termbits.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "state/descriptors/room.hpp"
#include "sys/check.hpp"
#include "sys/file_locks.hpp"
#include "sys/procfs.hpp"
#include "sys/terminal.hpp"

namespace icecore {
namespace pty {

constexpr std::uint64_t kTakeControllingTerminal = 0x540e;  // TIOCSCTTY
constexpr std::uint64_t kOpenSlave = 0x5441;                // TIOCGPTPEER
constexpr std::size_t kMostInput =
    4000;  // of 4095: beyond, bytes wait that have not been looked at
constexpr std::uint64_t kSysAdmin = std::uint64_t{1} << 21;

using Settings = struct ::termios2;

Settings settings_from(std::span<const std::uint8_t> bytes) {
  Settings settings;
  ICECORE_CHECK(bytes.size() == sizeof settings);
  std::memcpy(&settings, bytes.data(), sizeof settings);
  return settings;
}

sys::TerminalSettings bytes_of(const Settings& settings) {
  sys::TerminalSettings bytes;
  std::memcpy(bytes.data(), &settings, sizeof settings);
  return bytes;
}

bool is_master(const sys::FileStatus& status, const std::string& link) {
  return S_ISCHR(status.st_mode) && status.st_rdev == ::makedev(5, 2) &&
         (link == "/dev/ptmx" || link == "/dev/pts/ptmx");
}

std::string slave_path(unsigned number) { return fmt::format("/dev/pts/{}", number); }

bool is_slave_of(const FoundDescriptor& found, unsigned number) {
  return S_ISCHR(found.status.st_mode) && found.status.st_rdev == ::makedev(136, number);
}

/// The master, in the process, of a slave.
const FoundDescriptor* master_of(const DescriptorCapture& all, unsigned number) {
  for (const FoundDescriptor& found : all.found)
    if (S_ISCHR(found.status.st_mode) && found.status.st_rdev == ::makedev(5, 2) &&
        sys::pair_number(found.copy) == number)
      return &found;
  return nullptr;
}

/// The controlling terminal of the process, opened by that name; when it is a pair of its own.
std::optional<unsigned> own_terminal(const DescriptorCapture& all, const sys::FileStatus& status) {
  if (!S_ISCHR(status.st_mode) || status.st_rdev != ::makedev(5, 0)) return std::nullopt;
  const auto stat = sys::read_stat(all.capture.pid);
  if (!stat || ::major(stat->terminal) != 136) return std::nullopt;
  const unsigned number = ::minor(stat->terminal);
  return master_of(all, number) == nullptr ? std::nullopt : std::optional{number};
}

bool is_hung_up(const OpenDescription& open) {
  return S_ISCHR(open.status.st_mode) && ::major(open.status.st_rdev) == 136 &&
         open.link == slave_path(::minor(open.status.st_rdev)) + " (deleted)";
}

bool matches(const DescriptorCapture& all, const OpenDescription& open) {
  if (is_master(open.status, open.link) || is_hung_up(open) || own_terminal(all, open.status))
    return true;
  if (!S_ISCHR(open.status.st_mode) || ::major(open.status.st_rdev) != 136) return false;
  const unsigned number = ::minor(open.status.st_rdev);
  return open.link == slave_path(number) && master_of(all, number) != nullptr;
}

[[noreturn]] void refuse(unsigned number, const std::string& reason) {
  throw Error{Errc::unsupported, fmt::format("pseudo terminal {}: {}", slave_path(number), reason)};
}

// ---- what waits ---------------------------------------------------------------------------------

/// Characters that no setting of the program has a meaning for.
std::array<std::uint8_t, 2> unused_characters(const Settings& settings) {
  std::array<std::uint8_t, 2> unused{};
  std::size_t found = 0;
  for (std::uint8_t c = 1; found < unused.size(); ++c)
    if (c != '\n' && c != settings.c_cc[VEOL] && c != settings.c_cc[VEOL2]) unused[found++] = c;
  return unused;
}

/// Types the input again.  What the slave is set to afterwards is left to the caller.
void type_input(const sys::Fd& slave, const Settings& settings, const state::PtyObjectT& pty) {
  Settings plain = settings;
  plain.c_iflag = 0;
  plain.c_lflag = settings.c_lflag & (ICANON | IEXTEN);
  if ((settings.c_lflag & ICANON) == 0) {
    sys::set_terminal_settings(slave, bytes_of(plain));
    return sys::type_into(slave, pty.input);
  }
  plain.c_lflag |= IEXTEN;
  const auto unused = unused_characters(settings);
  const std::uint8_t end_of_file = unused[0], quote = unused[1];
  std::ranges::fill(plain.c_cc, std::uint8_t{0});
  plain.c_cc[VEOL] = settings.c_cc[VEOL];
  plain.c_cc[VEOL2] = settings.c_cc[VEOL2];
  plain.c_cc[VEOF] = end_of_file;
  plain.c_cc[VLNEXT] = quote;
  sys::set_terminal_settings(slave, bytes_of(plain));

  std::vector<std::uint8_t> keys;
  const auto type = [&](std::span<const std::uint8_t> text) {
    for (const std::uint8_t byte : text) {
      const bool has_meaning =
          byte == '\n' || byte == end_of_file || byte == quote ||
          (byte != 0 && (byte == plain.c_cc[VEOL] || byte == plain.c_cc[VEOL2]));
      if (has_meaning) keys.push_back(quote);
      keys.push_back(byte);
    }
  };
  auto left = std::span{pty.input};
  for (const state::TypedLine& line : pty.lines) {
    const std::size_t text = line.ended_by_key() ? line.bytes() : line.bytes() - 1;
    type(left.first(text));
    keys.push_back(line.ended_by_key() ? end_of_file : left[text]);
    left = left.subspan(line.bytes());
  }
  type(left);
  sys::type_into(slave, keys);
}

/// Lets a slave write again of which nothing waits to be read.  Returns what had stopped it.
state::StoppedOutput let_write(const sys::Fd& slave) {
  if (sys::can_write_to_terminal(slave)) return state::StoppedOutput::no;
  sys::start_output(slave);
  if (sys::can_write_to_terminal(slave)) return state::StoppedOutput::by_call;
  sys::stop_output(slave);
  sys::start_output(slave);
  return state::StoppedOutput::by_key;
}

void stop_again(const sys::Fd& slave, const Settings& settings, state::StoppedOutput how) {
  if (how == state::StoppedOutput::by_call) return sys::stop_output(slave);
  if (how == state::StoppedOutput::no) return;
  constexpr std::array<std::uint8_t, 1> kStop{0x13};
  Settings with_key = settings;
  with_key.c_iflag = IXON;
  with_key.c_lflag &= ~static_cast<unsigned>(EXTPROC);
  with_key.c_cc[VSTART] = 0x11;
  with_key.c_cc[VSTOP] = kStop.front();
  sys::set_terminal_settings(slave, bytes_of(with_key));
  sys::type_into(slave, kStop);
  sys::set_terminal_settings(slave, bytes_of(settings));
}

/// Puts into a pair what waits in it; `slave` does not block.  At the end it has its settings.
void fill(const sys::Fd& master, const sys::Fd& slave, const state::PtyObjectT& pty) {
  const Settings settings = settings_from(pty.settings);
  if (!pty.output.empty()) {
    Settings plain = settings;
    plain.c_oflag = 0;
    sys::set_terminal_settings(slave, bytes_of(plain));
    sys::write_terminal(slave, pty.output);
  }
  if (!pty.input.empty() || !pty.lines.empty()) type_input(slave, settings, pty);
  sys::set_terminal_settings(slave, bytes_of(settings));
  stop_again(slave, settings, pty.stopped_output);
  if (pty.packet_mode) sys::set_packet_mode(master, true);
}

bool ends_line(std::uint8_t byte, const Settings& settings) {
  return byte == '\n' ||
         (byte != 0 && (byte == settings.c_cc[VEOL] || byte == settings.c_cc[VEOL2]));
}

/// Takes the input out, and with ICANON leaves the slave without it.
void take_input(const sys::Fd& slave, const Settings& settings, state::PtyObjectT& pty) {
  if ((settings.c_lflag & ICANON) != 0) {
    while ((sys::terminal_events(slave) & POLLIN) != 0) {
      const auto line = sys::read_terminal(slave);
      pty.lines.emplace_back(static_cast<std::uint32_t>(line.size()),
                             line.empty() || !ends_line(line.back(), settings));
      pty.input.insert(pty.input.end(), line.begin(), line.end());
    }
  }
  Settings plain = settings;
  plain.c_lflag &= ~static_cast<unsigned>(ICANON);
  plain.c_cc[VMIN] = 1;
  plain.c_cc[VTIME] = 0;
  sys::set_terminal_settings(slave, bytes_of(plain));
  const auto rest = sys::drain_terminal(slave);
  pty.input.insert(pty.input.end(), rest.begin(), rest.end());
}

/// A description of ours; the pair stays locked.
sys::Fd open_slave_of(const sys::Fd& master, bool locked) {
  if (!locked) return sys::open_slave(master, O_RDWR | O_NONBLOCK);
  sys::set_locked(master, false);
  try {
    sys::Fd slave = sys::open_slave(master, O_RDWR | O_NONBLOCK);
    sys::set_locked(master, true);
    return slave;
  } catch (const Error&) {
    sys::set_locked(master, true);
    throw;
  }
}

/// What waits is taken out and put back; nobody else runs who could see that.
void capture_contents(const sys::Fd& master, state::PtyObjectT& pty) {
  const Settings settings = settings_from(pty.settings);
  if ((sys::terminal_events(master) & POLLPRI) != 0)
    refuse(pty.number, "a status of the packet mode waits to be read: try again");
  const sys::Fd slave = open_slave_of(master, pty.locked);
  const bool in_lines = (settings.c_lflag & ICANON) != 0;
  // poll(2) alone would wait for as many bytes as the program has asked for (VMIN).
  const bool readable = (sys::terminal_events(slave) & POLLIN) != 0;
  const bool waits = readable || sys::waiting_in_terminal(slave) != 0;
  const auto own = sys::Status::read(sys::current_process());
  const bool may_type = own && (own->number("CapEff", 16) & kSysAdmin) != 0;
  if ((in_lines || waits) && !may_type)
    refuse(pty.number, "may hold input, which only CAP_SYS_ADMIN can look at and put back");
  if (!sys::can_write_to_terminal(slave) && !may_type)
    refuse(pty.number,
           "its output may be stopped, which only CAP_SYS_ADMIN can find out and restore");
  if (waits && (settings.c_lflag & EXTPROC) != 0)
    refuse(pty.number, "holds input that was edited outside (EXTPROC): cannot be kept");
  if (sys::waiting_in_terminal(slave) > kMostInput)
    refuse(pty.number, "holds more input than its program takes: cannot be kept");

  if (pty.packet_mode) sys::set_packet_mode(master, false);
  if (in_lines || waits) take_input(slave, settings, pty);
  pty.output = sys::drain_terminal(master);
  pty.stopped_output = let_write(slave);
  fill(master, slave, pty);
}

// ---- capture
// --------------------------------------------------------------------------------------

/// Who else has a part of it could not be told that it goes.
void refuse_others(const DescriptorCapture& all, const state::PtyObjectT& pty, pid_t session) {
  if (session != 0 && !pty.controls)
    refuse(pty.number, fmt::format("is the terminal of session {}, outside the process", session));
  if (const auto other = sys::process_with_open_file(slave_path(pty.number), all.capture.pid))
    refuse(pty.number, fmt::format("is open in process {} too: cannot be kept", *other));
}

std::unique_ptr<state::PtyObjectT> capture_pair(const DescriptorCapture& all, unsigned number,
                                                const sys::Fd& master) {
  auto pty = std::make_unique<state::PtyObjectT>();
  pty->number = number;
  if (sys::line_discipline(master) != 0)
    refuse(number, "has another line discipline than N_TTY: cannot be kept");
  const auto slave = std::ranges::find_if(
      all.found, [&](const FoundDescriptor& found) { return is_slave_of(found, number); });
  const bool is_open =
      slave != all.found.end() || std::ranges::any_of(all.found, [&](const FoundDescriptor& found) {
        return own_terminal(all, found.status) == number;
      });
  pty->slave = is_open                                         ? state::SlaveState::open
               : (sys::terminal_events(master) & POLLHUP) != 0 ? state::SlaveState::closed
                                                               : state::SlaveState::never_open;
  const auto stat = sys::read_stat(all.capture.pid);
  const pid_t session = sys::session_of_slave(master);
  pty->controls = stat && session == all.capture.pid && stat->terminal == ::makedev(136, number);
  refuse_others(all, *pty, session);

  const auto settings = sys::terminal_settings(master);
  pty->settings.assign(settings.begin(), settings.end());
  const auto window = sys::window_size(master);
  pty->rows = window.rows, pty->columns = window.columns;
  pty->width = window.width, pty->height = window.height;
  pty->locked = sys::is_locked(master);
  if (pty->controls && pty->locked && slave == all.found.end())
    refuse(number, "is the controlling terminal, closed and locked: cannot be kept");
  pty->packet_mode = sys::has_packet_mode(master);
  pty->exclusive = slave != all.found.end() && sys::is_exclusive(slave->copy);
  if (const auto file = sys::try_status(slave_path(number));
      file && file->st_rdev == ::makedev(136, number)) {
    pty->has_file = true;
    pty->user = file->st_uid, pty->group = file->st_gid;
    pty->mode = file->st_mode & 07777;
  }
  if (pty->slave != state::SlaveState::never_open) capture_contents(master, *pty);
  return pty;
}

/// Its number may be that of another pair by now.
state::OpenUnion capture_hung_up(DescriptorCapture& all, const OpenDescription& open) {
  constexpr unsigned kHungUp = 1U << 31;
  const unsigned number = ::minor(open.status.st_rdev);
  const auto [at, fresh] =
      all.pty_index.try_emplace(number | kHungUp, static_cast<std::int32_t>(all.ptys.size()));
  if (fresh) {
    all.ptys.push_back(std::make_unique<state::PtyObjectT>());
    all.ptys.back()->number = number;
    all.ptys.back()->hung_up = true;
  }
  state::PtyT pty;
  pty.pty = at->second;
  return opened(pty);
}

/// It is opened by the process itself, later than these are set.
void refuse_signals(const OpenDescription& open) {
  if ((open.flags & O_ASYNC) != 0 || sys::signal_owner(open.copy) ||
      sys::owner_signal(open.copy) != 0)
    throw Error{Errc::unsupported,
                "/dev/tty: sends signals (O_ASYNC, F_SETOWN): cannot be snapshotted yet"};
}

state::OpenUnion capture(DescriptorCapture& all, const OpenDescription& open) {
  if (is_hung_up(open)) return capture_hung_up(all, open);
  const auto by_name = own_terminal(all, open.status);
  if (by_name) refuse_signals(open);
  const auto own_number = sys::pair_number(open.copy);
  const unsigned number = is_master(open.status, open.link) && own_number ? *own_number
                          : by_name                                       ? *by_name
                                    : ::minor(open.status.st_rdev);
  const bool master = is_master(open.status, open.link);
  auto at = all.pty_index.find(number);
  if (at == all.pty_index.end()) {
    const sys::Fd& end = master ? open.copy : master_of(all, number)->copy;
    all.ptys.push_back(capture_pair(all, number, end));
    at = all.pty_index.emplace(number, static_cast<std::int32_t>(all.ptys.size() - 1)).first;
  }
  state::PtyT pty;
  pty.pty = at->second;
  pty.master = master;
  pty.by_name = by_name.has_value();
  return opened(pty);
}

// ---- rebuilding
// -----------------------------------------------------------------------------------

PtyEnds rebuild_pair(const state::PtyObjectT& pty) {
  PtyEnds ends{.master = sys::make_pair(pty.number), .slave = {}};
  if (pty.hung_up) return ends;
  sys::set_window_size(ends.master, {pty.rows, pty.columns, pty.width, pty.height});
  const std::string path = slave_path(*sys::pair_number(ends.master));
  if (const auto file = sys::try_status(path);
      file && pty.has_file &&
      (file->st_uid != pty.user || file->st_gid != pty.group ||
       (file->st_mode & 07777) != pty.mode))
    sys::set_owner_and_mode(path, pty.user, pty.group, pty.mode);
  if (pty.slave == state::SlaveState::never_open) {
    sys::set_terminal_settings(ends.master, bytes_of(settings_from(pty.settings)));
    if (pty.packet_mode) sys::set_packet_mode(ends.master, true);
  } else {
    ends.slave = sys::open_slave(ends.master, O_RDWR | O_NONBLOCK);
    fill(ends.master, ends.slave, pty);
  }
  return ends;
}

sys::Fd rebuild(DescriptorRebuild& all, const state::DescriptionT& description, int) {
  const state::PtyT& pty = *description.open.AsPty();
  auto at = all.ptys.find(pty.pty);
  if (at == all.ptys.end())
    at = all.ptys
             .emplace(
                 pty.pty,
                 rebuild_pair(*all.process.descriptors->ptys[static_cast<std::size_t>(pty.pty)]))
             .first;
  const int flags = static_cast<int>(description.flags);
  // One by the name of /dev/tty takes the place of this once the terminal controls the process.
  if (!pty.master) return sys::open_slave(at->second.master, flags);
  sys::Fd master = sys::duplicate(at->second.master.get());
  sys::set_status_flags(master, flags);
  return master;
}

std::uint64_t as_argument(int number) { return static_cast<std::uint64_t>(number); }

/// Makes a call at once; the descriptor that it gives.
int run_for_descriptor(const DescriptorFinish& stage, const char* what, long call,
                       std::initializer_list<std::uint64_t> arguments) {
  stage.calls.run();
  stage.calls.call(what, call, arguments);
  return static_cast<int>(stage.calls.run_for(0));
}

/// By a slave, or where all are closed by one that is only opened for that.
void take_terminal(const DescriptorFinish& stage, int slave, int master) {
  const int number = slave >= 0
                         ? slave
                         : run_for_descriptor(stage, "open a slave", SYS_ioctl,
                                              {as_argument(master), kOpenSlave, O_RDWR | O_NOCTTY});
  stage.calls.call("take the controlling terminal", SYS_ioctl,
                   {as_argument(number), kTakeControllingTerminal, 0});
  if (slave < 0) stage.calls.call("close a slave", SYS_close, {as_argument(number)});
}

/// In the place of one that has been opened by another name.
void open_by_name(const DescriptorFinish& stage, std::uint32_t description) {
  const std::string tty = "/dev/tty";
  const auto flags = stage.image.descriptions[description]->flags;
  stage.calls.run();
  CallList& list = stage.calls.room(1, 32);
  const std::uint64_t name = list.put_string(tty);
  list.call("open /dev/tty", SYS_openat,
            {as_argument(AT_FDCWD), name, flags | std::uint64_t{O_NOCTTY}, 0});
  const auto opened = static_cast<int>(stage.calls.run_for(0));
  for (const state::Descriptor& descriptor : stage.image.descriptors)
    if (descriptor.description() == description)
      stage.calls.call("place a descriptor", SYS_dup3,
                       {as_argument(opened), as_argument(descriptor.number()),
                        descriptor.close_on_exec() ? std::uint64_t{O_CLOEXEC} : 0});
  stage.calls.call("close a descriptor", SYS_close, {as_argument(opened)});
}

}  // namespace pty

void finish_pairs(const DescriptorFinish& stage) {
  const auto in_control = [&](std::uint32_t description) -> const state::PtyT* {
    const auto* pty = stage.image.descriptions[description]->open.AsPty();
    if (pty == nullptr || !stage.is_open[description] ||
        !stage.image.ptys[static_cast<std::size_t>(pty->pty)]->controls)
      return nullptr;
    return pty;
  };
  int slave = -1, master = -1;
  for (const state::Descriptor& descriptor : stage.image.descriptors)
    if (const auto* pty = in_control(descriptor.description()); pty != nullptr && !pty->by_name)
      (pty->master ? master : slave) = descriptor.number();
  if (slave < 0 && master < 0) return;
  pty::take_terminal(stage, slave, master);
  for (std::uint32_t i = 0; i < stage.image.descriptions.size(); ++i)
    if (const auto* pty = in_control(i); pty != nullptr && pty->by_name)
      pty::open_by_name(stage, i);
}

void settle_pairs(DescriptorRebuild& all) {
  for (const auto& [index, ends] : all.ptys) {
    const state::PtyObjectT& pty = *all.process.descriptors->ptys[static_cast<std::size_t>(index)];
    if (pty.hung_up) continue;  // by the end of its master
    if (pty.exclusive && ends.slave) sys::make_exclusive(ends.slave);
    if (pty.locked) sys::set_locked(ends.master, true);
  }
  all.ptys.clear();
}

const DescriptorRoom pty_room{pty::matches, pty::capture, state::Open::Pty, pty::rebuild};

}  // namespace icecore
