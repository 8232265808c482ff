// SPDX-License-Identifier: Apache-2.0
#include "sys/process.hpp"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstddef>

#include "sys/call.hpp"

namespace icecore::sys {

bool send_signal(pid_t pid, int signal) {
  if (::kill(pid, signal) == 0) return true;
  if (errno == ESRCH) return false;
  throw_errno(errno, fmt::format("send signal {} to process {}", signal, pid));
}

bool send_signal(const Fd& pidfd, int signal) {
  if (::syscall(SYS_pidfd_send_signal, pidfd.get(), signal, nullptr, 0) == 0) return true;
  if (errno == ESRCH) return false;
  throw_errno(errno, fmt::format("send signal {}", signal));
}

int wait_child(pid_t pid) {
  int status = 0;
  checked([&] { return ::waitpid(pid, &status, 0); }, "wait for process {}", pid);
  return status;
}

bool await_end(const Fd& pidfd, std::optional<std::chrono::milliseconds> patience) {
  ::pollfd wait{pidfd.get(), POLLIN, 0};
  const int limit = patience ? static_cast<int>(patience->count()) : -1;
  return checked([&] { return ::poll(&wait, 1, limit); }, "wait for a process") > 0;
}

void give_way() noexcept {
  constexpr int kNice = 10;  // a tenth of the time of those who want it as well
  if (::getpriority(PRIO_PROCESS, 0) < kNice) ::setpriority(PRIO_PROCESS, 0, kNice);
}

void yield() noexcept { ::sched_yield(); }

void pause_for(std::chrono::microseconds duration) noexcept {
  const timespec time{.tv_sec = duration.count() / 1'000'000,
                      .tv_nsec = duration.count() % 1'000'000 * 1000};
  ::nanosleep(&time, nullptr);
}

Fd open_process(pid_t pid) {
  return Fd{static_cast<int>(
      checked([&] { return ::syscall(SYS_pidfd_open, pid, 0); }, "open process {}", pid))};
}

Fd try_lock_process(pid_t pid) {
  const std::string path = fmt::format("/proc/{}/maps", pid);
  Fd lock{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!lock && (errno == ENOENT || errno == ESRCH))
    throw Error{Errc::target_gone, fmt::format("process {} has ended", pid)};
  if (!lock) throw_errno(errno, "open " + path);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno == EWOULDBLOCK) return Fd{};
  throw_errno(errno, "lock " + path);
}

void unlock(const Fd& lock) noexcept { ::flock(lock.get(), LOCK_UN); }

EndedProcess::EndedProcess() {
  constexpr std::size_t kStack = 16 << 10;
  alignas(16) std::array<std::byte, kStack> stack;
  // Until it has ended the caller stands still: nothing of it is copied.
  pid_ = checked(
      [&] {
        return ::clone([](void*) { return 0; }, stack.data() + stack.size(), CLONE_VM | CLONE_VFORK,
                       nullptr);
      },
      "start a process");
}

EndedProcess::~EndedProcess() { ::waitpid(pid_, nullptr, __WALL); }

Fd copy_descriptor(const Fd& pidfd, int number) {
  return Fd{
      static_cast<int>(checked([&] { return ::syscall(SYS_pidfd_getfd, pidfd.get(), number, 0); },
                               "copy descriptor {} of the process", number))};
}

int compare_descriptors(pid_t pid, int a, int b) {
  const long order = checked([&] { return ::syscall(SYS_kcmp, pid, pid, KCMP_FILE, a, b); },
                             "compare descriptors {} and {} of process {}", a, b, pid);
  return order == 0 ? 0 : order == 1 ? -1 : 1;
}

bool share_descriptors_and_folder(pid_t a, pid_t b) {
  const auto same = [&](int what) {
    return checked([&] { return ::syscall(SYS_kcmp, a, b, what, 0, 0); },
                   "compare threads {} and {}", a, b) == 0;
  };
  return same(KCMP_FILES) && same(KCMP_FS);
}

ResourceLimit resource_limit(pid_t pid, int resource) {
  ::rlimit64 limit{};
  checked(
      [&] { return ::prlimit64(pid, static_cast<__rlimit_resource>(resource), nullptr, &limit); },
      "read resource limit {} of process {}", resource, pid);
  return {limit.rlim_cur, limit.rlim_max};
}

void set_resource_limit(pid_t pid, int resource, const ResourceLimit& limit) {
  const ::rlimit64 wanted{limit.soft, limit.hard};
  checked(
      [&] { return ::prlimit64(pid, static_cast<__rlimit_resource>(resource), &wanted, nullptr); },
      "set resource limit {} of process {}", resource, pid);
}

std::vector<std::uint64_t> affinity(pid_t tid) {
  std::array<std::uint64_t, 1024> mask;  // of 65,536 CPUs
  const long bytes =
      checked([&] { return ::syscall(SYS_sched_getaffinity, tid, mask.size() * 8, mask.data()); },
              "read CPU affinity of thread {}", tid);
  return {mask.begin(), mask.begin() + bytes / 8};
}

void set_affinity(pid_t tid, std::span<const std::uint64_t> mask) {
  checked([&] { return ::syscall(SYS_sched_setaffinity, tid, mask.size_bytes(), mask.data()); },
          "set CPU affinity of thread {}", tid);
}

namespace {

/// struct sched_attr, which glibc does not have yet.
struct SchedulingAttributes {
  std::uint32_t size = sizeof(SchedulingAttributes);
  std::uint32_t policy = 0;
  std::uint64_t flags = 0;
  std::int32_t nice = 0;
  std::uint32_t priority = 0;
  std::uint64_t runtime = 0, deadline = 0, period = 0;
  std::uint32_t utilization_min = 0, utilization_max = 0;
};
static_assert(sizeof(SchedulingAttributes) == 56);

constexpr std::uint64_t kClampFlags = 0x60;  // SCHED_FLAG_UTIL_CLAMP
constexpr std::uint32_t kNoClamp = 1024;

long schedule(pid_t tid, const Scheduling& wanted) noexcept {
  SchedulingAttributes attributes{.policy = wanted.policy,
                                  .flags = wanted.flags,
                                  .nice = wanted.nice,
                                  .priority = wanted.priority,
                                  .runtime = wanted.runtime_ns,
                                  .deadline = wanted.deadline_ns,
                                  .period = wanted.period_ns};
  const bool clamped = wanted.utilization_min != 0 ||
                       (wanted.utilization_max != 0 && wanted.utilization_max != kNoClamp);
  if (clamped) {
    attributes.flags |= kClampFlags;
    attributes.utilization_min = wanted.utilization_min;
    attributes.utilization_max = wanted.utilization_max;
  }
  return ::syscall(SYS_sched_setattr, tid, &attributes, 0);
}

constexpr int kIoPriorityOfThread = 1;  // IOPRIO_WHO_PROCESS

}  // namespace

Scheduling scheduling(pid_t tid) {
  SchedulingAttributes attributes;
  checked([&] { return ::syscall(SYS_sched_getattr, tid, &attributes, sizeof attributes, 0); },
          "read scheduling of thread {}", tid);
  return {.policy = attributes.policy,
          .flags = attributes.flags,
          .nice = attributes.nice,
          .priority = attributes.priority,
          .runtime_ns = attributes.runtime,
          .deadline_ns = attributes.deadline,
          .period_ns = attributes.period,
          .utilization_min = attributes.utilization_min,
          .utilization_max = attributes.utilization_max};
}

void set_scheduling(pid_t tid, const Scheduling& wanted) {
  checked([&] { return schedule(tid, wanted); }, "set scheduling policy {} of thread {}",
          wanted.policy, tid);
}

bool may_schedule(const Scheduling& wanted) noexcept {
  SchedulingAttributes before;
  if (::syscall(SYS_sched_getattr, 0, &before, sizeof before, 0) != 0) return false;
  if (schedule(0, wanted) != 0) return false;
  ::syscall(SYS_sched_setattr, 0, &before, 0);
  return true;
}

int io_priority(pid_t tid) {
  return static_cast<int>(
      checked([&] { return ::syscall(SYS_ioprio_get, kIoPriorityOfThread, tid); },
              "read I/O priority of thread {}", tid));
}

void set_io_priority(pid_t tid, int priority) {
  checked([&] { return ::syscall(SYS_ioprio_set, kIoPriorityOfThread, tid, priority); },
          "set I/O priority of thread {}", tid);
}

bool has_core_cookie(pid_t tid) noexcept {
  constexpr int kSchedCore = 62;  // PR_SCHED_CORE, its command "get", of one thread
  std::uint64_t cookie = 0;
  return ::prctl(kSchedCore, 0, tid, 0, &cookie) == 0 && cookie != 0;
}

long speculation_control(std::uint64_t kind) noexcept {
  return ::prctl(PR_GET_SPECULATION_CTRL, kind, 0, 0, 0);
}

bool can_deny_cpuid() noexcept {
  constexpr long kSetCpuid = 0x1012;  // ARCH_SET_CPUID
  return ::syscall(SYS_arch_prctl, kSetCpuid, 1) == 0;
}

std::uint32_t secure_bits() {
  return static_cast<std::uint32_t>(
      checked([] { return ::prctl(PR_GET_SECUREBITS, 0, 0, 0, 0); }, "read our secure bits"));
}

bool try_set_nice(int nice) noexcept { return ::setpriority(PRIO_PROCESS, 0, nice) == 0; }

SignalsBlocked::SignalsBlocked() {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before_);
}

SignalsBlocked::~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

const std::uint64_t kLookForChildren = std::uint64_t{WEXITED} | WSTOPPED | WCONTINUED | WNOHANG |
                                       WNOWAIT | static_cast<unsigned>(__WALL);

pid_t current_process() noexcept { return ::getpid(); }

pid_t current_thread() noexcept { return ::gettid(); }

bool pid_in_use(pid_t pid) {
  if (::kill(pid, 0) == 0 || errno == EPERM) return true;
  return ::kill(-pid, 0) == 0 || errno == EPERM;
}

void check_may_trace(pid_t pid) {
  // Opening it asks for the same right as PTRACE_ATTACH does.
  if (const Fd memory{::open(fmt::format("/proc/{}/mem", pid).c_str(), O_RDONLY | O_CLOEXEC)})
    return;
  const int err = errno;
  throw Error{Errc::permission,
              fmt::format("process {}: not permitted to trace it: run icecore as root, or as its "
                          "user with CAP_SYS_PTRACE and CAP_CHECKPOINT_RESTORE",
                          pid),
              err};
}

std::string kernel_release() {
  ::utsname names{};
  checked([&] { return ::uname(&names); }, "read the kernel's name");
  return names.release;
}

}  // namespace icecore::sys
