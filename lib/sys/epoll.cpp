// SPDX-License-Identifier: Apache-2.0
#include "sys/epoll.hpp"

#include <linux/kcmp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>

#include "sys/call.hpp"

namespace icecore::sys {

std::vector<EpollWatch> epoll_watches(const DescriptorInfo& info) {
  std::vector<EpollWatch> watches;
  std::map<int, int> seen;
  for (const std::string& line : info.lines("tfd")) {
    EpollWatch watch;
    unsigned long data = 0, inode = 0;
    if (std::sscanf(line.c_str(), "%d events: %x data: %lx pos:%*d ino:%lx", &watch.number,
                    &watch.events, &data, &inode) != 4)
      throw Error{Errc::unsupported, "epoll: this kernel does not tell what it watches"};
    watch.data = data;
    watch.inode = inode;
    watch.occurrence = seen[watch.number]++;
    watches.push_back(watch);
  }
  return watches;
}

bool watches(pid_t pid, int epoll, const EpollWatch& watch, int number) {
  ::kcmp_epoll_slot slot{.efd = static_cast<std::uint32_t>(epoll),
                         .tfd = static_cast<std::uint32_t>(watch.number),
                         .toff = static_cast<std::uint32_t>(watch.occurrence)};
  return checked([&] { return ::syscall(SYS_kcmp, pid, pid, KCMP_EPOLL_TFD, number, &slot); },
                 "find what epoll descriptor {} watches as {}", epoll, watch.number) == 0;
}

Fd make_epoll() {
  return Fd{checked([] { return ::epoll_create1(EPOLL_CLOEXEC); }, "make an epoll instance")};
}

bool can_be_watched(const Fd& file) {
  const Fd scratch = make_epoll();
  ::epoll_event event{};
  if (::epoll_ctl(scratch.get(), EPOLL_CTL_ADD, file.get(), &event) == 0) return true;
  if (errno == EPERM) return false;
  throw_errno(errno, fmt::format("watch descriptor {}", file.get()));
}

bool polls_busily(const Fd& epoll) {
  struct Parameters {
    std::uint32_t microseconds;
    std::uint16_t budget;
    std::uint8_t preferred, reserved;
  } parameters{};
  constexpr unsigned long kGetParameters = _IOR(0x8a, 0x02, Parameters);
  return ::ioctl(epoll.get(), kGetParameters, &parameters) == 0 &&
         (parameters.microseconds != 0 || parameters.preferred != 0);
}

}  // namespace icecore::sys
