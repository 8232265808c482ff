// SPDX-License-Identifier: Apache-2.0
#include "sys/terminal.hpp"

#include <asm/termbits.h>
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "sys/call.hpp"
#include "sys/files.hpp"
#include "sys/process.hpp"
#include "sys/procfs.hpp"

// <sys/ioctl.h> has another struct termios than the kernel.
extern "C" int ioctl(int fd, unsigned long request, ...) noexcept;

namespace icecore::sys {
namespace {

static_assert(sizeof(TerminalSettings) == sizeof(struct termios2));

// asm-generic/ioctls.h; its numbers do not depend on <sys/ioctl.h>.
constexpr unsigned long kFlow = 0x540a;               // TCXONC
constexpr unsigned long kStealInput = 0x5412;         // TIOCSTI
constexpr unsigned long kGetWindow = 0x5413;          // TIOCGWINSZ
constexpr unsigned long kSetWindow = 0x5414;          // TIOCSWINSZ
constexpr unsigned long kGetGroup = 0x540f;           // TIOCGPGRP
constexpr unsigned long kSetGroup = 0x5410;           // TIOCSPGRP
constexpr unsigned long kSetExclusive = 0x540c;       // TIOCEXCL
constexpr unsigned long kWaiting = 0x541b;            // FIONREAD
constexpr unsigned long kSetPacketMode = 0x5420;      // TIOCPKT
constexpr unsigned long kGetDiscipline = 0x5424;      // TIOCGETD
constexpr unsigned long kGetSession = 0x5429;         // TIOCGSID
constexpr unsigned long kGetSettings = 0x802c542a;    // TCGETS2
constexpr unsigned long kSetSettings = 0x402c542b;    // TCSETS2
constexpr unsigned long kGetNumber = 0x80045430;      // TIOCGPTN
constexpr unsigned long kSetLock = 0x40045431;        // TIOCSPTLCK
constexpr unsigned long kGetPacketMode = 0x80045438;  // TIOCGPKT
constexpr unsigned long kGetLock = 0x80045439;        // TIOCGPTLCK
constexpr unsigned long kGetExclusive = 0x80045440;   // TIOCGEXCL
constexpr unsigned long kOpenSlave = 0x5441;          // TIOCGPTPEER

template <class Argument>
int control(const Fd& terminal, unsigned long request, Argument argument, const char* what) {
  return checked([&] { return ::ioctl(terminal.get(), request, argument); }, "{} of a terminal",
                 what);
}

int number(const Fd& terminal, unsigned long request, const char* what) {
  int value = 0;
  control(terminal, request, &value, what);
  return value;
}

}  // namespace

TerminalSettings terminal_settings(const Fd& terminal) {
  TerminalSettings settings{};
  control(terminal, kGetSettings, settings.data(), "read the settings");
  return settings;
}

void set_terminal_settings(const Fd& terminal, const TerminalSettings& settings) {
  control(terminal, kSetSettings, settings.data(), "make the settings");
}

WindowSize window_size(const Fd& terminal) {
  static_assert(sizeof(WindowSize) == 8);
  WindowSize size;
  control(terminal, kGetWindow, &size, "read the window size");
  return size;
}

void set_window_size(const Fd& terminal, const WindowSize& size) {
  control(terminal, kSetWindow, &size, "set the window size");
}

std::optional<ControllingTerminal> own_terminal() {
  const auto stat = read_stat(current_process());
  if (!stat || stat->terminal == 0) return std::nullopt;
  std::string path = fmt::format("/dev/{}{}", ::major(stat->terminal) == 136 ? "pts/" : "tty",
                                 ::minor(stat->terminal));
  const auto status = try_status(path);
  if (!status || status->st_rdev != stat->terminal) path = "/dev/tty";
  return ControllingTerminal{stat->terminal, std::move(path)};
}

pid_t foreground_group(const Fd& terminal) {
  return number(terminal, kGetGroup, "ask for the foreground group");
}

void set_foreground_group(const Fd& terminal, pid_t group) {
  control(terminal, kSetGroup, &group, "set the foreground group");
}

std::optional<unsigned> pair_number(const Fd& master) {
  unsigned number = 0;
  if (::ioctl(master.get(), kGetNumber, &number) != 0) return std::nullopt;
  return number;
}

Fd make_pair(unsigned wanted) {
  // Each is the lowest that is free, so those before it are held until it comes, or too many are.
  constexpr std::size_t kMost = 256;
  std::vector<Fd> made;
  std::optional<unsigned> number;
  do {
    try {
      made.push_back(open_file("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK));
    } catch (const Error&) {
      if (made.empty()) throw;
      break;
    }
    number = pair_number(made.back());
  } while (number && *number < wanted && made.size() < kMost);
  Fd pair = std::move(number == wanted ? made.back() : made.front());
  set_locked(pair, false);
  return pair;
}

Fd open_slave(const Fd& master, int flags) {
  // O_CLOEXEC would stay among the flags of the description.
  Fd slave{control(master, kOpenSlave, flags | O_NOCTTY, "open the slave")};
  ::fcntl(slave.get(), F_SETFD, FD_CLOEXEC);
  return slave;
}

bool is_locked(const Fd& master) { return number(master, kGetLock, "ask for the lock") != 0; }

void set_locked(const Fd& master, bool locked) {
  const int value = locked ? 1 : 0;
  control(master, kSetLock, &value, "lock the pair");
}

bool has_packet_mode(const Fd& master) {
  return number(master, kGetPacketMode, "ask for the packet mode") != 0;
}

void set_packet_mode(const Fd& master, bool on) {
  const int value = on ? 1 : 0;
  control(master, kSetPacketMode, &value, "set the packet mode");
}

bool is_exclusive(const Fd& terminal) {
  return number(terminal, kGetExclusive, "ask for the exclusive mode") != 0;
}

void make_exclusive(const Fd& terminal) {
  control(terminal, kSetExclusive, 0, "set the exclusive mode");
}

int line_discipline(const Fd& terminal) {
  return number(terminal, kGetDiscipline, "ask for the line discipline");
}

pid_t session_of_slave(const Fd& master) {
  pid_t session = 0;
  return ::ioctl(master.get(), kGetSession, &session) == 0 ? session : 0;
}

pid_t foreground_of_slave(const Fd& master) {
  pid_t group = 0;
  return ::ioctl(master.get(), kGetGroup, &group) == 0 ? group : 0;
}

short terminal_events(const Fd& terminal) {
  ::pollfd wait{terminal.get(), POLLIN | POLLPRI, 0};
  checked([&] { return ::poll(&wait, 1, 0); }, "look at a terminal");
  return wait.revents;
}

bool can_write_to_terminal(const Fd& terminal) {
  ::pollfd wait{terminal.get(), POLLOUT, 0};
  checked([&] { return ::poll(&wait, 1, 0); }, "look at a terminal");
  return (wait.revents & POLLOUT) != 0;
}

void stop_output(const Fd& slave) { control(slave, kFlow, TCOOFF, "stop the output"); }

void start_output(const Fd& slave) { control(slave, kFlow, TCOON, "start the output"); }

std::size_t waiting_in_terminal(const Fd& terminal) {
  return static_cast<std::size_t>(number(terminal, kWaiting, "ask for the bytes that wait"));
}

std::vector<std::uint8_t> read_terminal(const Fd& terminal) {
  std::vector<std::uint8_t> bytes(8192);
  const ssize_t count = checked([&] { return ::read(terminal.get(), bytes.data(), bytes.size()); },
                                "read a terminal");
  bytes.resize(static_cast<std::size_t>(count));
  return bytes;
}

std::vector<std::uint8_t> drain_terminal(const Fd& terminal) {
  std::vector<std::uint8_t> all;
  while ((terminal_events(terminal) & POLLIN) != 0) {
    const auto bytes = read_terminal(terminal);
    if (bytes.empty()) break;
    all.insert(all.end(), bytes.begin(), bytes.end());
  }
  return all;
}

void write_terminal(const Fd& terminal, std::span<const std::uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = checked(
        [&] { return ::write(terminal.get(), bytes.data(), bytes.size()); }, "write to a terminal");
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

void type_into(const Fd& slave, std::span<const std::uint8_t> bytes) {
  for (const std::uint8_t byte : bytes) control(slave, kStealInput, &byte, "put back the input");
}

std::optional<pid_t> process_with_open_file(const std::string& path, pid_t but_not) {
  const auto wanted = try_status(path);
  return wanted ? process_with_open_file(path, *wanted, but_not) : std::nullopt;
}

std::optional<pid_t> process_with_open_file(const std::string& link, const FileStatus& wanted,
                                            pid_t but_not) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  // The same name may lead elsewhere, in a container.
  const auto is_same = [&](const std::string& entry) {
    const auto status = try_status(entry);
    return status && status->st_dev == wanted.st_dev && status->st_ino == wanted.st_ino;
  };
  for (const auto& process : fs::directory_iterator{"/proc", ignored}) {
    const std::string name = process.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const auto pid = static_cast<pid_t>(std::atoi(name.c_str()));
    if (pid == but_not || pid == current_process()) continue;
    for (fs::directory_iterator at{process.path() / "fd", ignored}, end; !ignored && at != end;
         at.increment(ignored))
      if (try_read_link(at->path()) == link && is_same(at->path())) return pid;
  }
  return std::nullopt;
}

}  // namespace icecore::sys
