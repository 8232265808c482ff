// SPDX-License-Identifier: Apache-2.0
//
// State: a process that leads a session whose controlling terminal is a pair of its own, of which
// it has closed the slave; with NAMED it has it open as /dev/tty, twice.
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include "target.hpp"

using namespace target;

static void expect_keys(int master, int terminal) {
  must(::write(master, "keys\n", 5), "write");
  char text[16];
  require(must(::read(terminal, text, sizeof text), "read") == 5, "another line");
  require(std::string(text, 5) == "keys\n", "other keys");
  must(::read(master, text, sizeof text), "read");  // what was echoed
}

int main(int count, char**) {
  must(::setsid(), "setsid");
  const int master = static_cast<int>(must(::open("/dev/ptmx", O_RDWR | O_NOCTTY), "ptmx"));
  const int unlocked = 0;
  must(::ioctl(master, TIOCSPTLCK, &unlocked), "TIOCSPTLCK");
  const int slave = static_cast<int>(must(::ioctl(master, TIOCGPTPEER, O_RDWR), "TIOCGPTPEER"));
  must(::ioctl(slave, TIOCSCTTY, 0), "TIOCSCTTY");
  int named = -1, again = -1;
  if (count > 1) {
    named = static_cast<int>(must(::open("/dev/tty", O_RDWR | O_CLOEXEC), "/dev/tty"));
    again = static_cast<int>(must(::fcntl(named, F_DUPFD, 20), "dup"));
  }
  must(::close(slave), "close");

  return serve([=] {
    int session = 0;
    must(::ioctl(master, TIOCGSID, &session), "TIOCGSID");
    require(session == ::getpid(), "it controls another session");
    const int opened = static_cast<int>(must(::open("/dev/tty", O_RDWR), "/dev/tty"));
    expect_keys(master, opened);
    must(::close(opened), "close");
    if (named < 0) return;
    expect_keys(master, named);
    struct ::stat status {};
    must(::fstat(again, &status), "fstat");
    require(status.st_rdev == ::makedev(5, 0), "opened by another name");
    must(::fcntl(again, F_SETFL, O_NONBLOCK), "F_SETFL");
    require((::fcntl(named, F_GETFL) & O_NONBLOCK) != 0, "they are apart");
    must(::fcntl(again, F_SETFL, 0), "F_SETFL");
    require((::fcntl(named, F_GETFD) & FD_CLOEXEC) != 0 && ::fcntl(again, F_GETFD) == 0,
            "FD_CLOEXEC");
  });
}
