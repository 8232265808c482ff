// SPDX-License-Identifier: Apache-2.0
#pragma once

// Terminals, and pairs of pseudo terminals (a master and a slave, as pty(7) has it).
//
// Kernel facts relied on here:
//  * What is asked of a master (TCGETS2, TIOCSWINSZ, TIOCGSID) is answered for its slave.
//  * A pair gets the lowest free number of its devpts; TIOCGPTPEER opens the slave without its
//  name,
//    but not while the pair is locked.
//  * A slave that nobody has open reads as EIO at the master, and as POLLHUP, as soon as it has
//    been open once.
//  * Nothing shows what waits in a terminal without taking it.  TIOCSTI puts bytes back as if they
//    were typed, at once and in order; since Linux 6.2 with CAP_SYS_ADMIN (sysctl
//    dev.tty.legacy_tiocsti).  Without ICANON the ends of lines are forgotten, and with it an
//    unfinished line shows nowhere.
//  * poll(2) of a terminal first lets everything come in that was written at the other end.
//  * In packet mode (TIOCPKT) a status waits as POLLPRI; beginning packet mode anew clears it.
//  * Output that is stopped shows as a slave that has room and is not ready to be written to.  What
//    tcflow(TCOOFF) has stopped only TCOON starts again; what the key has (VSTOP, ^S), the other
//    key, but also TCOOFF and TCOON together, and settings without IXON.
//  * A session has one controlling terminal and the other way round; only its leader takes one.

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sys/fd.hpp"
#include "sys/files.hpp"

namespace icecore::sys {

/// struct termios2: 44 bytes.
using TerminalSettings = std::array<std::uint8_t, 44>;

TerminalSettings terminal_settings(const Fd& terminal);
/// At once, whatever waits in it (TCSANOW).
void set_terminal_settings(const Fd& terminal, const TerminalSettings& settings);

struct WindowSize {
  std::uint16_t rows = 0, columns = 0, width = 0, height = 0;
  friend bool operator==(const WindowSize&, const WindowSize&) = default;
};
WindowSize window_size(const Fd& terminal);
void set_window_size(const Fd& terminal, const WindowSize& size);

/// Of the caller's session; nothing when it has no controlling terminal.
struct ControllingTerminal {
  std::uint64_t device;
  std::string path;  ///< "/dev/pts/3", or "/dev/tty" when it has no name here
};
std::optional<ControllingTerminal> own_terminal();

/// The process group in the foreground.  Of one's own controlling terminal only.
pid_t foreground_group(const Fd& terminal);
void set_foreground_group(const Fd& terminal, pid_t group);

// ---- pairs ------------------------------------------------------------------------------------

/// The number of the pair of a master; nothing when it is none.
std::optional<unsigned> pair_number(const Fd& master);

/// A new pair by its master, unlocked; number `wanted` if that is free and not far away.
Fd make_pair(unsigned wanted);

/// A new description of the slave.
Fd open_slave(const Fd& master, int flags);

bool is_locked(const Fd& master);
void set_locked(const Fd& master, bool locked);
bool has_packet_mode(const Fd& master);
void set_packet_mode(const Fd& master, bool on);
bool is_exclusive(const Fd& terminal);
void make_exclusive(const Fd& terminal);
int line_discipline(const Fd& terminal);

/// The session that the slave controls; 0: none.
pid_t session_of_slave(const Fd& master);
/// The group in the foreground of the slave; 0: none.
pid_t foreground_of_slave(const Fd& master);

/// poll(2) without waiting: POLLIN, POLLPRI, POLLHUP.
short terminal_events(const Fd& terminal);

/// Whether a write(2) would not wait.
bool can_write_to_terminal(const Fd& terminal);

/// tcflow(3) with TCOOFF and TCOON.
void stop_output(const Fd& slave);
void start_output(const Fd& slave);

/// Bytes that can be read; of a slave with ICANON, in whole lines.
std::size_t waiting_in_terminal(const Fd& terminal);

/// Takes what can be read now.
std::vector<std::uint8_t> drain_terminal(const Fd& terminal);

/// Takes one read's worth: a line, with ICANON.
std::vector<std::uint8_t> read_terminal(const Fd& terminal);

/// Throws, with errno EAGAIN, when there is no room in a terminal that does not block.
void write_terminal(const Fd& terminal, std::span<const std::uint8_t> bytes);

/// As if they were typed.
void type_into(const Fd& slave, std::span<const std::uint8_t> bytes);

/// A process, other than ourselves, that has a file of that name open; nothing when none is found.
std::optional<pid_t> process_with_open_file(const std::string& path, pid_t but_not);
/// The same of one that has no name: `link` is what /proc/PID/fd/N leads to.
std::optional<pid_t> process_with_open_file(const std::string& link, const FileStatus& wanted,
                                            pid_t but_not);

}  // namespace icecore::sys
