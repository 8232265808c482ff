// SPDX-License-Identifier: Apache-2.0
//
// State: blocked signals are pending, for the process and for two threads, real-time ones with
// values and in an order that must stay.
#include <sys/wait.h>

#include <csignal>

#include "target.hpp"

using namespace target;

static std::uint64_t bit(int number) { return 1ull << (number - 1); }
static const std::uint64_t kBlocked =
    bit(SIGUSR1) | bit(SIGUSR2) | bit(SIGTERM) | bit(SIGRTMIN) | bit(SIGRTMIN + 1);

static siginfo_t queued(int number, int value) {
  siginfo_t info{};
  info.si_signo = number;
  info.si_code = SI_QUEUE;
  info.si_pid = 4711;  // whatever the sender said
  info.si_uid = 12;
  info.si_value.sival_int = value;
  return info;
}

static void queue_to_process() {
  for (const int value : {5, 3, 9}) {
    siginfo_t info = queued(SIGRTMIN, value);
    must(::syscall(SYS_rt_sigqueueinfo, ::getpid(), SIGRTMIN, &info), "rt_sigqueueinfo");
  }
  must(::kill(::getpid(), SIGTERM), "kill");
}

static void queue_to_thread(int first_value) {
  const long tid = ::syscall(SYS_gettid);
  for (int value = first_value; value < first_value + 3; ++value) {
    siginfo_t info = queued(SIGRTMIN + 1, value);
    must(::syscall(SYS_rt_tgsigqueueinfo, ::getpid(), tid, SIGRTMIN + 1, &info), "tgsigqueue");
  }
  must(::syscall(SYS_tgkill, ::getpid(), tid, SIGUSR1), "tgkill");
}

/// Takes the next pending signal of those in `wanted` and holds it against what was sent.
static void take(std::uint64_t wanted, int number, int code, int value) {
  siginfo_t info{};
  const timespec now{};
  const long taken = raw(SYS_rt_sigtimedwait, &wanted, &info, &now, 8);
  require(taken == number, "signal " + std::to_string(number) + " is not the next pending one");
  require(info.si_code == code, "another si_code");
  const pid_t sender = code == SI_QUEUE ? 4711 : ::getpid();
  require(info.si_pid == sender, "another sender: " + std::to_string(info.si_pid));
  if (code == SI_QUEUE) require(info.si_value.sival_int == value && info.si_uid == 12, "value");
}

static void take_of_thread(int first_value) {
  const std::uint64_t wanted = bit(SIGUSR1) | bit(SIGRTMIN + 1);
  take(wanted, SIGUSR1, SI_TKILL, 0);
  for (int v = first_value; v < first_value + 3; ++v) take(wanted, SIGRTMIN + 1, SI_QUEUE, v);
}

int main() {
  must(::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &kBlocked, nullptr, 8), "set the mask");
  Crew crew{1};
  const auto queue_all = [&] {
    queue_to_process();
    queue_to_thread(100);
    crew.each([](std::size_t) { queue_to_thread(200); });
  };
  queue_all();
  return serve([&] {
    take_of_thread(100);
    crew.each([](std::size_t) { take_of_thread(200); });
    for (const int value : {5, 3, 9}) take(bit(SIGRTMIN), SIGRTMIN, SI_QUEUE, value);
    take(kBlocked, SIGTERM, SI_USER, 0);
    require(raw(SYS_rt_sigtimedwait, &kBlocked, nullptr, &static_cast<const timespec&>(timespec{}),
                8) == -EAGAIN,
            "one signal too many");
    queue_all();
  });
}
