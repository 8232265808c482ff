// SPDX-License-Identifier: Apache-2.0
//
// State: slaves of a pseudo terminal whose master is closed, beside another pair.
#include <poll.h>
#include <sys/ioctl.h>

#include "target.hpp"

using namespace target;

static int open_master() {
  const int master = static_cast<int>(must(::open("/dev/ptmx", O_RDWR | O_NOCTTY), "ptmx"));
  const int unlocked = 0;
  must(::ioctl(master, TIOCSPTLCK, &unlocked), "TIOCSPTLCK");
  return master;
}

static int open_slave(int master, int flags) {
  return static_cast<int>(must(::ioctl(master, TIOCGPTPEER, flags | O_NOCTTY), "TIOCGPTPEER"));
}

int main() {
  const int gone = open_master();
  const int one = open_slave(gone, O_RDWR), two = open_slave(gone, O_RDONLY | O_NONBLOCK);
  must(::close(gone), "close");
  const int master = open_master(), slave = open_slave(master, O_RDWR);

  return serve([=] {
    char byte;
    for (const int hung_up : {one, two}) {
      require(raw(SYS_read, hung_up, &byte, 1) == 0, "it can be read from");
      require(::isatty(hung_up) == 0 && errno == EIO, "it answers");
      pollfd ask{hung_up, POLLIN, 0};
      require(::poll(&ask, 1, 0) == 1 && (ask.revents & POLLHUP) != 0, "it is not hung up");
    }
    require(raw(SYS_write, one, "x", 1) == -EIO, "it can be written to");
    require((::fcntl(two, F_GETFL) & O_NONBLOCK) != 0, "O_NONBLOCK is gone");
    must(::write(slave, "x", 1), "write");
    must(::read(master, &byte, 1), "read");
    require(byte == 'x', "another byte");
  });
}
