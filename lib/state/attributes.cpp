// SPDX-License-Identifier: Apache-2.0
#include "state/attributes.hpp"

#include <linux/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>

#include "sys/procfs.hpp"

namespace icecore {
namespace {

// arch_prctl(2), asm/prctl.h.
constexpr std::uint64_t kGetXcompPermission = 0x1022;
constexpr std::uint64_t kRequestXcompPermission = 0x1023;
constexpr std::uint64_t kGetUntagMask = 0x4001;
// prctl(2), newer than Debian 12's headers.
constexpr std::uint64_t kSetMdwe = 65;
constexpr std::uint64_t kGetMdwe = 66;
constexpr std::uint64_t kSetMemoryMerge = 67;
constexpr std::uint64_t kGetMemoryMerge = 68;
// membarrier(2): the command that lists registrations, Linux 6.3, each bit of which is a command.
constexpr std::uint64_t kGetRegistrations = 1 << 9;

/// Features that every process may use without asking: all but AMX tile data.
constexpr std::uint64_t kTileDataPermission = std::uint64_t{1} << 18;

constexpr std::array kNamespaces{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"};

std::string proc(pid_t pid, const char* file) { return fmt::format("/proc/{}/{}", pid, file); }

void refuse_other_namespaces(pid_t pid, Refusals& refusals) {
  const sys::Links our_links{"/proc/self/ns"}, their_links{proc(pid, "ns")};
  for (const char* name : kNamespaces) {
    const auto ours = our_links.try_read(name);
    const auto theirs = their_links.try_read(name);
    if (!ours || !theirs || *ours == *theirs) continue;
    if (std::string_view{name} == "user")  // inside it, nobody may look at /proc/PID/map_files
      refusals.add("process {}: lives in another user namespace: cannot be snapshotted", pid);
    else
      refusals.add(
          "process {}: lives in another {} namespace: run icecore inside it "
          "(nsenter -t {} -a icecore …)",
          pid, name, pid);
  }
  for (const char* name : {"pid", "time"}) {
    const auto own = their_links.try_read(name);
    const auto next = their_links.try_read(fmt::format("{}_for_children", name).c_str());
    if (own && next && *own != *next)
      refusals.add("process {}: its children would live in another {} namespace: cannot be kept",
                   pid, name);
  }
  const auto ours = sys::try_status("/proc/self/root/.");
  const auto theirs = sys::try_status(proc(pid, "root/."));
  if (ours && theirs && (ours->st_dev != theirs->st_dev || ours->st_ino != theirs->st_ino))
    refusals.add(
        "process {}: has another root directory (chroot): run icecore inside it "
        "(nsenter -t {} -r icecore …)",
        pid, pid);
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

/// What a security module (SELinux, AppArmor, Smack) calls the process; empty when there is none.
std::string security_label(const char* process) {
  std::string label = sys::readable_text(fmt::format("/proc/{}/attr/current", process));
  while (!label.empty() && (label.back() == '\n' || label.back() == '\0')) label.pop_back();
  return label;
}

}  // namespace

void refuse_other_worlds(pid_t pid, Refusals& refusals) { refuse_other_namespaces(pid, refusals); }

namespace {

void refuse_children(pid_t pid, Refusals& refusals) {
  const auto children = sys::list_children(pid);
  if (!children.empty())
    refusals.add(
        "process {}: has {} child process(es), the first is {}: process trees cannot be "
        "snapshotted yet",
        pid, children.size(), children.front());
}

}  // namespace

AttributeQuestions::AttributeQuestions(CallList& list)
    : limits_(list.reserve(sys::kResourceLimits * sizeof(sys::ResourceLimit))),
      words_(list.reserve(3 * 8)),
      segments_(list.reserve(16)) {
  // From inside, since prlimit(2) of another user's process wants CAP_SYS_RESOURCE.
  for (std::uint64_t resource = 0; resource < sys::kResourceLimits; ++resource)
    list.call("read a resource limit", SYS_prlimit64,
              {0, resource, 0, limits_ + resource * sizeof(sys::ResourceLimit)});
  list.call("read the subreaper setting", SYS_prctl, {PR_GET_CHILD_SUBREAPER, words_});
  list.try_call(SYS_arch_prctl, {kGetXcompPermission, words_ + 8});
  brk_ = list.call("read brk", SYS_brk, {0});
  dumpable_ = list.call("read the dumpable setting", SYS_prctl, {PR_GET_DUMPABLE});
  thp_ = list.call("read the huge page setting", SYS_prctl, {PR_GET_THP_DISABLE, 0, 0, 0, 0});
  timer_slack_ = list.call("read the timer slack", SYS_prctl, {PR_GET_TIMERSLACK});
  mdwe_ = list.try_call(SYS_prctl, {kGetMdwe, 0, 0, 0, 0});
  merge_ = list.try_call(SYS_prctl, {kGetMemoryMerge, 0, 0, 0, 0});
  membarrier_ = list.try_call(SYS_membarrier, {kGetRegistrations, 0, 0});
  segment_bytes_ = list.try_call(SYS_modify_ldt, {0, segments_, 16});
  list.try_call(SYS_arch_prctl, {kGetUntagMask, words_ + 16});
  constexpr std::uint64_t kAll = 0;  // P_ALL
  children_ = list.try_call(SYS_waitid, {kAll, 0, 0, sys::kLookForChildren, 0});
}

void AttributeQuestions::answers(const CallList& list, Capture& capture, state::ProcessT& process,
                                 state::AddressSpaceT& address_space) const {
  const pid_t pid = capture.pid;
  const auto stat = sys::read_stat(pid);
  if (!stat) throw Error{Errc::target_gone, fmt::format("process {} has ended", pid)};
  const sys::Status& status = capture.statuses.front();
  // Of any thread; a file of each is read only to count them.
  if (list.result(children_) != -ECHILD) refuse_children(pid, capture.refusals);
  if (list.result(segment_bytes_) > 0)
    capture.refusals.add("process {}: has segments of its own (modify_ldt): cannot be kept", pid);
  if (const auto mask = list.value<std::uint64_t>(words_ + 16); mask != 0 && ~mask != 0)
    capture.refusals.add("process {}: uses tagged addresses (LAM): cannot be kept", pid);

  process.pid = capture.process.leader().inner_tid();
  process.group = stat->group;
  process.session = stat->session;
  process.name = sys::read_process_file(pid, "comm");
  if (!process.name.empty()) process.name.pop_back();  // newline
  process.personality = static_cast<std::uint32_t>(
      std::strtoul(sys::read_process_file(pid, "personality").c_str(), nullptr, 16));
  process.umask = static_cast<std::uint32_t>(status.number("Umask", 8));
  process.no_new_privileges = status.number("NoNewPrivs") != 0;
  process.oom_score_adj =
      static_cast<std::int32_t>(trimmed_number(sys::try_read_process_file(pid, "oom_score_adj")));
  process.working_directory = capture_working_directory(capture);
  for (std::uint64_t resource = 0; resource < sys::kResourceLimits; ++resource) {
    const auto limit =
        list.value<sys::ResourceLimit>(limits_ + resource * sizeof(sys::ResourceLimit));
    process.limits.emplace_back(limit.soft, limit.hard);
  }
  process.child_subreaper = list.value<std::int32_t>(words_) != 0;
  process.xstate_permission = list.value<std::uint64_t>(words_ + 8);
  process.coredump_filter = static_cast<std::uint32_t>(
      std::strtoul(sys::read_process_file(pid, "coredump_filter").c_str(), nullptr, 16));
  process.security_label = security_label(std::to_string(pid).c_str());
  const auto positive = [&](std::size_t call) {
    return static_cast<std::uint32_t>(std::max<std::int64_t>(0, list.result(call)));
  };
  process.thp_flags = positive(thp_) & ~1U;
  process.deny_write_execute = positive(mdwe_);
  process.merge_memory = positive(merge_) != 0;
  process.membarrier = positive(membarrier_);
  process.dumpable = static_cast<std::int32_t>(list.result(dumpable_));
  process.thp_disabled = list.result(thp_) != 0;
  process.timer_slack_ns = static_cast<std::uint64_t>(list.result(timer_slack_));
  address_space.brk = static_cast<std::uint64_t>(list.result(brk_));
}

void rebuild_attributes(const state::ProcessT& process, int working_directory, bool in_our_session,
                        CallStream& calls) {
  calls.call("go to the working directory", SYS_fchdir,
             {static_cast<std::uint64_t>(working_directory)});
  calls.call("set the umask", SYS_umask, {process.umask});
  calls.call("set the personality", SYS_personality, {process.personality});
  // Set while the process was being built, so that it would not outlive its builder.
  calls.call("clear the parent death signal", SYS_prctl, {PR_SET_PDEATHSIG, 0});
  calls.call("set the subreaper setting", SYS_prctl,
             {PR_SET_CHILD_SUBREAPER, process.child_subreaper ? 1U : 0U});
  calls.call("set the huge page setting", SYS_prctl,
             {PR_SET_THP_DISABLE, process.thp_disabled ? 1U : 0U, process.thp_flags, 0, 0});
  calls.call("set the timer slack", SYS_prctl, {PR_SET_TIMERSLACK, process.timer_slack_ns});
  if (process.session == process.pid && !in_our_session)
    calls.call("begin a session", SYS_setsid, {});
  else if (process.session == process.pid || process.group == process.pid)
    calls.call("begin a process group", SYS_setpgid, {0, 0});
  if ((process.xstate_permission & kTileDataPermission) != 0)
    calls.call("ask for AMX", SYS_arch_prctl, {kRequestXcompPermission, 18});
  if (process.merge_memory)
    calls.call("let all memory be merged", SYS_prctl, {kSetMemoryMerge, 1, 0, 0, 0});
  for (std::uint64_t bits = process.membarrier; bits != 0; bits &= bits - 1)
    calls.call("register for membarrier", SYS_membarrier, {bits & ~(bits - 1), 0, 0});
  if (process.no_new_privileges && process.credentials.empty())  // an image from before there were
    calls.call("set no_new_privs", SYS_prctl, {PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0});
}

void rebuild_from_outside(const state::ProcessT& process, pid_t pid) {
  const std::string score = proc(pid, "oom_score_adj");
  if (trimmed_number(sys::try_read_file(score)) != process.oom_score_adj &&
      !sys::try_write_file(score, std::to_string(process.oom_score_adj)))
    throw Error{Errc::permission,
                fmt::format("set oom_score_adj to {}: not permitted", process.oom_score_adj)};
  const std::string filter = proc(pid, "coredump_filter");
  if (std::strtoul(sys::read_file(filter).c_str(), nullptr, 16) != process.coredump_filter &&
      !sys::try_write_file(filter, fmt::format("{:#x}", process.coredump_filter)))
    throw Error{Errc::permission, fmt::format("set coredump_filter to {:#x}: not permitted",
                                              process.coredump_filter)};
}

namespace {

sys::ResourceLimit limit_of(const state::ProcessT& process, std::size_t resource) {
  return {process.limits[resource].soft(), process.limits[resource].hard()};
}

}  // namespace

void rebuild_limits(const state::ProcessT& process, pid_t pid) {
  for (int resource = 0; resource < sys::kResourceLimits; ++resource) {
    sys::ResourceLimit limit = limit_of(process, static_cast<std::size_t>(resource));
    if (resource == RLIMIT_SIGPENDING) limit.soft = limit.hard;
    sys::set_resource_limit(pid, resource, limit);
  }
}

void rebuild_last_attributes(const state::ProcessT& process, CallStream& calls) {
  const sys::ResourceLimit limit = limit_of(process, RLIMIT_SIGPENDING);
  CallList& list = calls.room(1, sizeof limit);
  list.call("limit the signal queue", SYS_prlimit64,
            {0, RLIMIT_SIGPENDING, list.put_value(limit), 0});
  // Other credentials have changed it.  Only the kernel itself sets 2.
  calls.call("set the dumpable setting", SYS_prctl,
             {PR_SET_DUMPABLE, process.dumpable == 1 ? 1U : 0U});
  if (process.deny_write_execute != 0)
    calls.call("deny memory that is writable and executable", SYS_prctl,
               {kSetMdwe, process.deny_write_execute, 0, 0, 0});
}

void refuse_lacking_rights(const state::ProcessT& process, const sys::Status& own,
                           Refusals& refusals) {
  constexpr std::uint64_t kSysResource = std::uint64_t{1} << 24;
  const pid_t self = sys::current_process();
  const std::uint64_t rights = own.number("CapEff", 16);
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
  if (const std::string ours = security_label("self"); ours != process.security_label)
    refusals.add("security label: the process had '{}', icecore has '{}': cannot be set",
                 process.security_label, ours);
}

}  // namespace icecore
