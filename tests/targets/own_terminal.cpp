// SPDX-License-Identifier: Apache-2.0
//
// State: a process that leads a session whose controlling terminal is a pseudo terminal of its own:
// keys that are signals reach it.
#include <sys/ioctl.h>

#include <atomic>
#include <csignal>

#include "target.hpp"

using namespace target;

static std::atomic<int> interrupts = 0;

int main() {
  must(::setsid(), "setsid");
  const int master = static_cast<int>(must(::open("/dev/ptmx", O_RDWR | O_NOCTTY), "ptmx"));
  const int unlocked = 0;
  must(::ioctl(master, TIOCSPTLCK, &unlocked), "TIOCSPTLCK");
  const int slave = static_cast<int>(must(::ioctl(master, TIOCGPTPEER, O_RDWR), "TIOCGPTPEER"));
  must(::ioctl(slave, TIOCSCTTY, 0), "TIOCSCTTY");
  struct sigaction action {};
  action.sa_handler = [](int) { ++interrupts; };
  action.sa_flags = SA_RESTART;
  must(::sigaction(SIGINT, &action, nullptr), "sigaction");

  return serve([=] {
    require(::getsid(0) == ::getpid(), "another session");
    int session = 0, group = 0;
    must(::ioctl(slave, TIOCGSID, &session), "TIOCGSID");
    must(::ioctl(slave, TIOCGPGRP, &group), "TIOCGPGRP");
    require(session == ::getpid() && group == ::getpgrp(), "it controls another session");
    const int before = interrupts;
    must(::write(master, "\x03", 1), "write");
    await([&] { return interrupts == before + 1; }, "no SIGINT came");
    char echo[8];
    must(::read(master, echo, sizeof echo), "read");
  });
}
