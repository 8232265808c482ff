// SPDX-License-Identifier: Apache-2.0
//
// State: pairs of pseudo terminals, both ends in the process: settings, window size, lock, packet
// mode, exclusive mode, a number of its own; what has been typed and not read (whole lines, one
// ended by the end of file, an unfinished one; with ICANON and without) and what has been written
// and not read; output stopped by tcflow(3) and by the key for it; a slave that is closed again,
// and one that was never open.
#include <asm/termbits.h>
#include <linux/kcmp.h>
#include <poll.h>

#include "target.hpp"

extern "C" int ioctl(int, unsigned long, ...) noexcept;

using namespace target;

namespace {

// asm-generic/ioctls.h, whose termios <sys/ioctl.h> does not have.
constexpr unsigned long kGetSettings = 0x802c542a, kSetSettings = 0x402c542b;
constexpr unsigned long kGetWindow = 0x5413, kSetWindow = 0x5414;
constexpr unsigned long kGetNumber = 0x80045430, kSetLock = 0x40045431, kGetLock = 0x80045439;
constexpr unsigned long kSetPackets = 0x5420, kGetPackets = 0x80045438;
constexpr unsigned long kSetExclusive = 0x540c, kGetExclusive = 0x80045440;
constexpr unsigned long kOpenSlave = 0x5441, kFlow = 0x540a;

struct Window {
  std::uint16_t rows, columns, width, height;
};

struct Pair {
  int master = static_cast<int>(must(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), "ptmx"));
  int slave = -1;

  Pair() { lock(0); }
  void lock(int locked) const { must(::ioctl(master, kSetLock, &locked), "TIOCSPTLCK"); }
  void open() {
    slave = static_cast<int>(must(::ioctl(master, kOpenSlave, O_RDWR | O_NOCTTY), "TIOCGPTPEER"));
  }
  int ask(int end, unsigned long question) const {
    int answer = 0;
    must(::ioctl(end, question, &answer), "ioctl");
    return answer;
  }
};

termios2 settings(int end) {
  termios2 settings{};
  must(::ioctl(end, kGetSettings, &settings), "TCGETS2");
  return settings;
}

void set(int end, const termios2& settings) {
  must(::ioctl(end, kSetSettings, &settings), "TCSETS2");
}

short events(int end, short wanted = POLLIN) {
  pollfd wait{end, wanted, 0};
  must(::poll(&wait, 1, 0), "poll");
  return wait.revents;
}

void type(const Pair& pair, const std::string& keys) {
  require(::write(pair.master, keys.data(), keys.size()) == static_cast<ssize_t>(keys.size()),
          "typed in part");
}

std::string read(int end) {
  char bytes[8192];
  const ssize_t count = must(::read(end, bytes, sizeof bytes), "read");
  return {bytes, static_cast<std::size_t>(count)};
}

void expect(int end, const std::string& wanted) {
  require((events(end) & POLLIN) != 0, "nothing to read, not '" + wanted + "'");
  const std::string found = read(end);
  require(found == wanted, "read '" + found + "', not '" + wanted + "'");
}

void flow(int end, int action) { must(::ioctl(end, kFlow, action), "TCXONC"); }

bool is_stopped(int end) { return (events(end, POLLOUT) & POLLOUT) == 0; }

/// In whose output nobody gets further, behind `said`.
void expect_stopped(const Pair& pair, const std::string& said) {
  require(is_stopped(pair.slave), "the output goes on");
  expect(pair.master, said);
  require(is_stopped(pair.slave), "the output goes on");
}

void expect_nothing(int end) { require((events(end) & POLLIN) == 0, "more to read"); }

/// As long as nobody looks: the settings must be the same for ever.
struct Kept {
  int end;
  termios2 wanted;
  void check() const {
    const termios2 now = settings(end);
    require(std::memcmp(&now, &wanted, sizeof now) == 0, "other settings");
  }
};

}  // namespace

int main() {
  Pair lines, keys, packets, closed, fresh;
  lines.open(), keys.open(), packets.open(), closed.open();
  const int copy = static_cast<int>(must(::dup(lines.slave), "dup"));
  const int twice =
      static_cast<int>(must(::ioctl(lines.master, kOpenSlave, O_RDONLY | O_NONBLOCK), "again"));

  termios2 quiet = settings(lines.slave);
  quiet.c_lflag &= ~static_cast<unsigned>(ECHO);
  quiet.c_cc[VEOL] = ';';
  quiet.c_cc[VERASE] = 'q';
  set(lines.slave, quiet);
  termios2 raw = settings(keys.slave);
  raw.c_iflag = 0, raw.c_lflag = 0, raw.c_cc[VMIN] = 3, raw.c_cc[VTIME] = 7;
  raw.c_cflag = (raw.c_cflag & ~static_cast<unsigned>(CBAUD)) | B57600;
  set(keys.slave, raw);
  const Window window{43, 132, 1320, 860};
  must(::ioctl(lines.slave, kSetWindow, &window), "TIOCSWINSZ");
  const int on = 1;
  must(::ioctl(packets.master, kSetPackets, &on), "TIOCPKT");
  must(::ioctl(keys.slave, kSetExclusive, 0), "TIOCEXCL");
  must(::write(closed.slave, "last words", 10), "write");
  ::close(closed.slave);
  bool spoken = false;
  Pair by_call, by_key;
  by_call.open(), by_key.open();
  fresh.lock(1);
  lines.lock(1);

  const auto refill = [&] {
    type(lines, "one\n\x16\x03two;end\x04\x04un");
    type(lines, "finished");
    type(keys, std::string{"a\0b\x03\r\n\xff\x04", 8});
    must(::write(lines.slave, "out\n", 4), "write");
    must(::write(packets.slave, "packet", 6), "write");
    must(::write(by_call.slave, "call", 4), "write");
    flow(by_call.slave, TCOOFF);
    must(::write(by_key.slave, "key", 3), "write");
    type(by_key, "\x13");
    await([&] { return is_stopped(by_key.slave); }, "the key stops nothing");
  };
  refill();
  const Kept kept[] = {{lines.slave, quiet},
                       {keys.slave, settings(keys.slave)},
                       {packets.slave, settings(packets.slave)},
                       {fresh.master, settings(fresh.master)}};

  must(::fchmod(lines.slave, 0604), "fchmod");
  const bool given_away = ::fchown(lines.slave, 1, 2) == 0;  // where permitted

  return serve([&] {
    struct ::stat file {};
    must(::fstat(lines.slave, &file), "fstat");
    require((file.st_mode & 0777) == 0604, "another mode");
    require(!given_away || (file.st_uid == 1 && file.st_gid == 2), "another owner");
    for (const Kept& each : kept) each.check();
    Window now{};
    must(::ioctl(lines.master, kGetWindow, &now), "TIOCGWINSZ");
    require(std::memcmp(&now, &window, sizeof now) == 0, "another window size");
    require(lines.ask(lines.master, kGetLock) == 1 && keys.ask(keys.master, kGetLock) == 0 &&
                fresh.ask(fresh.master, kGetLock) == 1,
            "another lock");
    require(
        packets.ask(packets.master, kGetPackets) == 1 && keys.ask(keys.master, kGetPackets) == 0,
        "another packet mode");
    require(keys.ask(keys.slave, kGetExclusive) == 1 && lines.ask(lines.slave, kGetExclusive) == 0,
            "another exclusive mode");
    require(target::raw(SYS_kcmp, ::getpid(), ::getpid(), KCMP_FILE, lines.slave, copy) == 0,
            "no duplicate");
    require((::fcntl(twice, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == (O_RDONLY | O_NONBLOCK),
            "other flags");

    expect(lines.slave, "one\n");
    expect(twice, "\x03two;");
    expect(copy, "end");
    require((events(lines.slave) & POLLIN) != 0 && read(lines.slave).empty(), "no end of file");
    expect_nothing(lines.slave);
    type(lines, "\n");
    expect(lines.slave, "unfinished\n");
    expect(lines.master, "out\r\n");
    expect_nothing(lines.master);
    expect(keys.slave, std::string{"a\0b\x03\r\n\xff\x04", 8});
    expect_nothing(keys.slave);
    expect(packets.master, std::string{"\0packet", 7});
    require((events(packets.master, POLLIN | POLLPRI) & (POLLIN | POLLPRI)) == 0, "a status");

    expect_stopped(by_call, "call");
    type(by_call, "\x11");
    expect_nothing(by_call.slave);
    require(is_stopped(by_call.slave), "the key starts what tcflow has stopped");
    flow(by_call.slave, TCOON);
    require(!is_stopped(by_call.slave), "tcflow does not start it");
    expect_stopped(by_key, "key");
    flow(by_key.slave, TCOON);
    require(is_stopped(by_key.slave), "tcflow starts what the key has stopped");
    type(by_key, "\x11");
    await([&] { return !is_stopped(by_key.slave); }, "the key does not start it");

    if (!spoken) expect(closed.master, "last words");
    spoken = true;
    require((events(closed.master) & POLLHUP) != 0, "the closed slave is open");
    require((events(fresh.master) & (POLLHUP | POLLIN)) == 0, "somebody has opened the fresh one");
    refill();
  });
}
