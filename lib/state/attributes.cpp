// SPDX-License-Identifier: Apache-2.0
#include "state/attributes.hpp"

#include <linux/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "sys/procfs.hpp"

namespace icecore {
namespace {

// arch_prctl(2), asm/prctl.h.
constexpr std::uint64_t kGetXcompPermission = 0x1022;
constexpr std::uint64_t kRequestXcompPermission = 0x1023;
// prctl(2), newer than Debian 12's headers.
constexpr std::uint64_t kGetMdwe = 66;
constexpr std::uint64_t kGetMemoryMerge = 68;
constexpr std::uint64_t kGetIoFlusher = 58;

/// Features that every process may use without asking: all but AMX tile data.
constexpr std::uint64_t kTileData = std::uint64_t{1} << 18;

constexpr std::array kNamespaces{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"};

constexpr std::array<std::string_view, 9> kCredentials{
    "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"};

std::string proc(pid_t pid, const char* file) { return fmt::format("/proc/{}/{}", pid, file); }

void refuse_other_credentials(std::span<const pid_t> threads, Refusals& refusals) {
  const auto ours = sys::Status::read(sys::current_process());
  for (const pid_t tid : threads) {
    const auto theirs = sys::Status::read(tid);
    if (!ours || !theirs) continue;
    for (const auto field : kCredentials)
      if (field != "NoNewPrivs" && theirs->text(field) != ours->text(field))
        refusals.add(
            "thread {}: {} is '{}', icecore's is '{}': only a process with the credentials "
            "of its snapshotter can be kept; run icecore with the same ones",
            tid, field, theirs->text(field), ours->text(field));
    if (theirs->number("Seccomp") != 0)
      refusals.add("thread {}: seccomp is on: cannot be kept", tid);
  }
}

void refuse_other_namespaces(pid_t pid, Refusals& refusals) {
  for (const char* name : kNamespaces) {
    const auto ours = sys::try_read_link(fmt::format("/proc/self/ns/{}", name));
    const auto theirs = sys::try_read_link(fmt::format("/proc/{}/ns/{}", pid, name));
    if (ours && theirs && *ours != *theirs)
      refusals.add(
          "process {}: lives in another {} namespace: run icecore inside it "
          "(nsenter -t {} -a icecore …)",
          pid, name, pid);
  }
  const auto ours = sys::try_status("/proc/self/root/.");
  const auto theirs = sys::try_status(proc(pid, "root/."));
  if (ours && theirs && (ours->st_dev != theirs->st_dev || ours->st_ino != theirs->st_ino))
    refusals.add("process {}: has another root directory (chroot): cannot be kept", pid);
}

std::int64_t trimmed_number(const std::optional<std::string>& text) {
  return text ? std::strtoll(text->c_str(), nullptr, 10) : 0;
}

std::unique_ptr<state::DirectoryT> capture_working_directory(Capture& capture) {
  auto directory = std::make_unique<state::DirectoryT>();
  const std::string link = proc(capture.pid, "cwd");
  directory->path = sys::read_link(link);
  const auto status = sys::status(link);
  directory->device = status.st_dev;
  directory->inode = status.st_ino;
  const auto named = sys::try_status(directory->path);
  if (!named || named->st_dev != status.st_dev || named->st_ino != status.st_ino)
    capture.refusals.add("working directory {}: has been deleted or replaced: cannot be kept",
                         directory->path);
  return directory;
}

bool armed(const ::itimerval& timer) {
  return timer.it_value.tv_sec != 0 || timer.it_value.tv_usec != 0;
}

}  // namespace

void refuse_other_worlds(pid_t pid, std::span<const pid_t> threads, Refusals& refusals) {
  refuse_other_namespaces(pid, refusals);
  refuse_other_credentials(threads, refusals);
}

void refuse_from_outside(pid_t pid, Refusals& refusals) {
  const auto children = sys::list_children(pid);
  if (!children.empty())
    refusals.add(
        "process {}: has {} child process(es), the first is {}: process trees cannot be "
        "snapshotted yet",
        pid, children.size(), children.front());
  if (const auto timers = sys::try_read_file(proc(pid, "timers")); timers && !timers->empty())
    refusals.add("process {}: has POSIX timers (timer_create): cannot be snapshotted yet", pid);
}

AttributeQuestions::AttributeQuestions(CallList& list)
    : timers_(list.reserve(3 * sizeof(::itimerval))), words_(list.reserve(4 * 8)) {
  for (std::uint64_t which = 0; which < 3; ++which)
    list.call("read an interval timer", SYS_getitimer,
              {which, timers_ + which * sizeof(::itimerval)});
  list.call("read the time stamp counter setting", SYS_prctl, {PR_GET_TSC, words_ + 24});
  list.call("read the parent death signal", SYS_prctl, {PR_GET_PDEATHSIG, words_});
  list.call("read the subreaper setting", SYS_prctl, {PR_GET_CHILD_SUBREAPER, words_ + 8});
  list.try_call(SYS_arch_prctl, {kGetXcompPermission, words_ + 16});
  brk_ = list.call("read brk", SYS_brk, {0});
  dumpable_ = list.call("read the dumpable setting", SYS_prctl, {PR_GET_DUMPABLE});
  thp_ = list.call("read the huge page setting", SYS_prctl, {PR_GET_THP_DISABLE, 0, 0, 0, 0});
  timer_slack_ = list.call("read the timer slack", SYS_prctl, {PR_GET_TIMERSLACK});
  securebits_ = list.call("read the secure bits", SYS_prctl, {PR_GET_SECUREBITS});
  mdwe_ = list.try_call(SYS_prctl, {kGetMdwe, 0, 0, 0, 0});
  merge_ = list.try_call(SYS_prctl, {kGetMemoryMerge, 0, 0, 0, 0});
  flusher_ = list.try_call(SYS_prctl, {kGetIoFlusher, 0, 0, 0, 0});
}

void AttributeQuestions::refuse_timers(const CallList& list, Capture& capture) const {
  constexpr std::array kNames{"ITIMER_REAL (also alarm)", "ITIMER_VIRTUAL", "ITIMER_PROF"};
  for (std::size_t i = 0; i < kNames.size(); ++i)
    if (armed(list.value<::itimerval>(timers_ + i * sizeof(::itimerval))))
      capture.refusals.add("interval timer {}: is running: cannot be snapshotted yet", kNames[i]);
}

void AttributeQuestions::refuse_settings(const CallList& list, Capture& capture) const {
  const auto refuse_if_set = [&](std::size_t call, const char* what) {
    if (list.result(call) > 0) capture.refusals.add("{}: cannot be kept yet", what);
  };
  refuse_if_set(securebits_, "secure bits (PR_SET_SECUREBITS)");
  refuse_if_set(mdwe_, "memory-deny-write-execute (PR_SET_MDWE)");
  refuse_if_set(merge_, "memory merging (PR_SET_MEMORY_MERGE)");
  if (list.value<std::int32_t>(words_ + 24) != PR_TSC_ENABLE)
    capture.refusals.add("time stamp counter is disabled (PR_SET_TSC): cannot be kept yet");
  if (list.value<std::int32_t>(words_) != 0)
    capture.refusals.add("parent death signal (PR_SET_PDEATHSIG): cannot be kept yet");
  refuse_if_set(flusher_, "I/O flusher (PR_SET_IO_FLUSHER)");
}

void AttributeQuestions::answers(const CallList& list, Capture& capture, state::ProcessT& process,
                                 state::AddressSpaceT& address_space) const {
  refuse_timers(list, capture);
  refuse_settings(list, capture);
  const pid_t pid = capture.pid;
  const auto stat = sys::read_stat(pid);
  const auto status = sys::Status::read(pid);
  if (!stat || !status) throw Error{Errc::target_gone, fmt::format("process {} has ended", pid)};

  process.pid = capture.process.leader().inner_tid();
  process.group = stat->group;
  process.session = stat->session;
  process.name = sys::read_file(proc(pid, "comm"));
  if (!process.name.empty()) process.name.pop_back();  // newline
  process.personality = static_cast<std::uint32_t>(
      std::strtoul(sys::read_file(proc(pid, "personality")).c_str(), nullptr, 16));
  process.umask = static_cast<std::uint32_t>(status->number("Umask", 8));
  process.no_new_privileges = status->number("NoNewPrivs") != 0;
  process.oom_score_adj =
      static_cast<std::int32_t>(trimmed_number(sys::try_read_file(proc(pid, "oom_score_adj"))));
  process.working_directory = capture_working_directory(capture);
  for (int resource = 0; resource < sys::kResourceLimits; ++resource) {
    const auto limit = sys::resource_limit(pid, resource);
    process.limits.emplace_back(limit.soft, limit.hard);
  }
  process.child_subreaper = list.value<std::int32_t>(words_ + 8) != 0;
  process.xstate_permission = list.value<std::uint64_t>(words_ + 16);
  process.dumpable = static_cast<std::int32_t>(list.result(dumpable_));
  process.thp_disabled = list.result(thp_) != 0;
  process.timer_slack_ns = static_cast<std::uint64_t>(list.result(timer_slack_));
  address_space.brk = static_cast<std::uint64_t>(list.result(brk_));
}

void rebuild_attributes(const state::ProcessT& process, int working_directory, CallStream& calls) {
  calls.call("go to the working directory", SYS_fchdir,
             {static_cast<std::uint64_t>(working_directory)});
  calls.call("set the umask", SYS_umask, {process.umask});
  calls.call("set the personality", SYS_personality, {process.personality});
  // Set while the process was being built, so that it would not outlive its builder.
  calls.call("clear the parent death signal", SYS_prctl, {PR_SET_PDEATHSIG, 0});
  calls.call("set the subreaper setting", SYS_prctl,
             {PR_SET_CHILD_SUBREAPER, process.child_subreaper ? 1U : 0U});
  calls.call("set the huge page setting", SYS_prctl,
             {PR_SET_THP_DISABLE, process.thp_disabled ? 1U : 0U, 0, 0, 0});
  calls.call("set the timer slack", SYS_prctl, {PR_SET_TIMERSLACK, process.timer_slack_ns});
  if (process.session == process.pid)
    calls.call("begin a session", SYS_setsid, {});
  else if (process.group == process.pid)
    calls.call("begin a process group", SYS_setpgid, {0, 0});
  if ((process.xstate_permission & kTileData) != 0)
    calls.call("ask for AMX", SYS_arch_prctl, {kRequestXcompPermission, 18});
  if (process.dumpable != 1)
    calls.call("set the dumpable setting", SYS_prctl, {PR_SET_DUMPABLE, 0});
  if (process.no_new_privileges)
    calls.call("set no_new_privs", SYS_prctl, {PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0});
}

void rebuild_limits(const state::ProcessT& process, pid_t pid) {
  for (int resource = 0; resource < sys::kResourceLimits; ++resource) {
    const state::Limit& wanted = process.limits[static_cast<std::size_t>(resource)];
    sys::set_resource_limit(pid, resource, {wanted.soft(), wanted.hard()});
  }
  const std::string path = proc(pid, "oom_score_adj");
  if (trimmed_number(sys::try_read_file(path)) != process.oom_score_adj &&
      !sys::try_write_file(path, std::to_string(process.oom_score_adj)))
    throw Error{Errc::permission,
                fmt::format("set oom_score_adj to {}: not permitted", process.oom_score_adj)};
}

void refuse_lacking_rights(const state::ProcessT& process, Refusals& refusals) {
  constexpr std::uint64_t kSysResource = std::uint64_t{1} << 24;
  constexpr std::uint64_t kSysNice = std::uint64_t{1} << 23;
  const pid_t self = sys::current_process();
  const auto status = sys::Status::read(self);
  const std::uint64_t rights = status ? status->number("CapEff", 16) : 0;
  if ((rights & kSysResource) == 0) {
    for (int resource = 0; resource < sys::kResourceLimits; ++resource) {
      const std::uint64_t wanted = process.limits[static_cast<std::size_t>(resource)].hard();
      const std::uint64_t ours = sys::resource_limit(self, resource).hard;
      if (wanted > ours)
        refusals.add(
            "resource limit {}: the process had a hard limit of {}, icecore has {} and may "
            "not raise it: start icecore with a higher limit or with CAP_SYS_RESOURCE",
            resource, wanted, ours);
    }
    const auto ours = trimmed_number(sys::try_read_file("/proc/self/oom_score_adj"));
    if (process.oom_score_adj < ours)
      refusals.add(
          "oom_score_adj: the process had {}, icecore has {} and may not lower it: "
          "CAP_SYS_RESOURCE is needed",
          process.oom_score_adj, ours);
  }
  const bool raised =
      std::ranges::any_of(process.threads, [](const auto& t) { return t->nice < 0; });
  if (raised && (rights & kSysNice) == 0)
    refusals.add("nice: a thread had a negative nice value: CAP_SYS_NICE is needed");
}

}  // namespace icecore
