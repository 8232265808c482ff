// SPDX-License-Identifier: Apache-2.0
#include "sys/spawn.hpp"

#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>

#include "sys/call.hpp"
#include "sys/mapping.hpp"
#include "sys/process.hpp"
#include "sys/ptrace.hpp"
#include "sys/raw_call.hpp"

extern "C" long icecore_clone3(struct clone_args* arguments, std::size_t size, void (*child)(void*),
                               void* argument);

namespace icecore::sys {
namespace {

constexpr std::size_t kChildStackBytes = 64 << 10;

/// What the child works from.  In our memory, which it shares until it execs.
struct ChildOrders {
  int program;
  int first;
  int second;
  int parent;                  ///< pidfd of our own process
  std::atomic<int> traced{0};  ///< 1: go on, we trace you
};
static_assert(std::atomic<int>::is_always_lock_free);

/// Runs in the child, on its own stack but in our memory: no libc, no errno, nothing that a
/// sanitizer would instrument.
__attribute__((no_sanitize("address", "undefined", "thread"), noinline)) void child_main(
    void* argument) {
  auto* const orders = static_cast<ChildOrders*>(argument);
  raw_call(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
  auto* const word = reinterpret_cast<int*>(&orders->traced);
  while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == 0) {
    // Who died before that prctl(2) sends no signal; and a pidfd is ready only with the last
    // thread.
    ::pollfd parent{orders->parent, POLLIN, 0};
    if (raw_call(SYS_poll, reinterpret_cast<long>(&parent), 1, 0) == 1)
      raw_call(SYS_exit_group, 127);
    const ::timespec pause{0, 20'000'000};
    raw_call(SYS_futex, reinterpret_cast<long>(word), FUTEX_WAIT, 0,
             reinterpret_cast<long>(&pause));
  }

  // Out of the way first: the wanted numbers may be any of these.
  const long program = raw_call(SYS_fcntl, orders->program, F_DUPFD_CLOEXEC, 10);
  const long first = raw_call(SYS_fcntl, orders->first, F_DUPFD_CLOEXEC, 10);
  const long second = raw_call(SYS_fcntl, orders->second, F_DUPFD_CLOEXEC, 10);
  raw_call(SYS_dup2, first, 3);
  raw_call(SYS_dup2, second, 4);
  raw_call(SYS_close_range, 0, 2, 0);
  raw_call(SYS_close_range, 5, ~0U, CLOSE_RANGE_CLOEXEC);
  const char nothing[] = {'\0'};
  const char* none[] = {nullptr};
  raw_call(SYS_execveat, program, reinterpret_cast<long>(nothing), reinterpret_cast<long>(none),
           reinterpret_cast<long>(none), AT_EMPTY_PATH);
  raw_call(SYS_exit_group, 127);
}

}  // namespace

Spawned spawn_stopped(const SpawnRequest& request) {
  const Mapping stack = Mapping::anonymous(kChildStackBytes);
  const Fd ourselves = open_process(::getpid());
  ChildOrders orders{request.program.get(), request.first.get(), request.second.get(),
                     ourselves.get()};
  int pidfd = -1;
  pid_t wanted = request.pid;
  struct ::clone_args arguments {};
  arguments.flags = CLONE_VM | CLONE_PIDFD;
  if (request.namespaces) arguments.flags |= CLONE_NEWPID | CLONE_NEWNS;
  arguments.pidfd = reinterpret_cast<std::uint64_t>(&pidfd);
  arguments.exit_signal = SIGCHLD;
  arguments.stack = reinterpret_cast<std::uint64_t>(stack.data());
  arguments.stack_size = stack.size();
  if (wanted != 0) {
    arguments.set_tid = reinterpret_cast<std::uint64_t>(&wanted);
    arguments.set_tid_size = 1;
  }
  const SignalsBlocked blocked;  // a handler of ours must not run in the child
  const long pid = icecore_clone3(&arguments, sizeof arguments, child_main, &orders);
  if (pid < 0)
    throw_errno(static_cast<int>(-pid), wanted != 0 ? fmt::format("make process {}", wanted)
                                                    : std::string{"make a process"});
  Spawned spawned{static_cast<pid_t>(pid), Fd{pidfd}};
  // Until it is traced it only waits; if we cannot trace it, it must not outlive this stack.
  const auto abandon = [&] {
    send_signal(spawned.pidfd, SIGKILL);
    wait_stop(spawned.pid);
  };
  try {
    if (!seize(spawned.pid, true)) throw Error{Errc::internal, "a process ended at its start"};
  } catch (...) {
    abandon();
    throw;
  }
  orders.traced.store(1, std::memory_order_release);
  ::syscall(SYS_futex, &orders.traced, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  for (;;) {
    const Stop stop = wait_stop(spawned.pid);
    // From the stop inside execve on to one outside of any system call.
    if (stop.kind == Stop::Kind::event) interrupt(spawned.pid);
    if (stop.kind == Stop::Kind::trap) return spawned;
    if (stop.kind == Stop::Kind::exited)
      throw Error{Errc::io, "start the first program of the process: exec failed"};
    resume(spawned.pid);
  }
}

void make_children_in_namespace_of(const Fd& pidfd) {
  checked([&] { return ::setns(pidfd.get(), CLONE_NEWPID); }, "enter the new pid namespace");
}

void make_children_in_own_namespace() {
  const Fd own{checked([] { return ::open("/proc/thread-self/ns/pid", O_RDONLY | O_CLOEXEC); },
                       "open our pid namespace")};
  checked([&] { return ::setns(own.get(), CLONE_NEWPID); }, "return to our pid namespace");
}

pid_t spawn_program(const std::string& path, const char* name, std::span<const int> passed) {
  ::posix_spawn_file_actions_t actions;
  ::posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  for (const int stream : {0, 1, 2})
    ::posix_spawn_file_actions_addopen(&actions, stream, "/dev/null", O_RDWR, 0);
  // Out of the way first: the numbers wanted may be any of these.
  constexpr int kAside = 100;
  const auto count = static_cast<int>(passed.size());
  for (int i = 0; i < count; ++i)
    ::posix_spawn_file_actions_adddup2(&actions, passed[static_cast<std::size_t>(i)], kAside + i);
  for (int i = 0; i < count; ++i) ::posix_spawn_file_actions_adddup2(&actions, kAside + i, 3 + i);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, 3 + count);
  sigset_t none;
  sigemptyset(&none);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  // Not in a session of its own: where the kernel shares out the CPUs between sessions
  // (sched_autogroup), it would compete with whoever waits for it.
  ::posix_spawnattr_setpgroup(&attributes, 0);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
  char* const arguments[] = {const_cast<char*>(name), nullptr};
  pid_t pid = 0;
  const int err = ::posix_spawn(&pid, path.c_str(), &actions, &attributes, arguments, ::environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (err != 0) throw_errno(err, fmt::format("start {}", path));
  return pid;
}

pid_t fork_with_one_table() {
  return static_cast<pid_t>(checked(
      [] { return ::syscall(SYS_clone, CLONE_FILES | SIGCHLD, nullptr, nullptr, nullptr, 0); },
      "make a process"));
}

}  // namespace icecore::sys
