// SPDX-License-Identifier: Apache-2.0
#include "state/rebuild.hpp"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "image/mapping.hpp"
#include "image/vdso_text.hpp"
#include "state/attributes.hpp"
#include "state/contents.hpp"
#include "state/credentials.hpp"
#include "state/landlock.hpp"
#include "state/memory_policies.hpp"
#include "state/seccomp.hpp"
#include "state/signals.hpp"
#include "state/terminal.hpp"
#include "state/thread_settings.hpp"
#include "state/threads.hpp"
#include "state/timeouts.hpp"
#include "state/timers.hpp"
#include "sys/call.hpp"
#include "sys/check.hpp"
#include "sys/page.hpp"
#include "sys/pagemap_scan.hpp"
#include "sys/procfs.hpp"
#include "sys/spawn.hpp"
#include "sys/time.hpp"

namespace icecore {
namespace {

using state::MappingFlag;
using state::MappingKind;

constexpr std::size_t kLeaderCalls = 4096;
constexpr std::size_t kLeaderBytes = std::size_t{1} << 20;
constexpr std::size_t kInitBytes = std::size_t{64} << 10;
constexpr std::size_t kInitListBytes = std::size_t{16} << 10;
constexpr std::uint64_t kVdsoRoom = std::uint64_t{64} << 10;

/// What the CallList of a thread takes.
struct Needs {
  std::size_t calls = 0;
  std::size_t bytes = 0;
};

const state::CredentialsT* credentials_of(const state::ProcessT& image,
                                          const state::ThreadT& thread) {
  if (thread.credentials < 0) return nullptr;
  return image.credentials[static_cast<std::size_t>(thread.credentials)].get();
}

/// The seccomp that a thread puts on by itself: another than all have in common.
const state::SeccompT* own_seccomp_of(const state::ProcessT& image, const state::ThreadT& thread) {
  if (thread.seccomp < 0 || common_seccomp(image) >= 0) return nullptr;
  return image.seccomp[static_cast<std::size_t>(thread.seccomp)].get();
}

Needs needs_of(const state::ProcessT& image, const state::ThreadT& thread) {
  Needs needs{
      .calls = rebuild_thread_call_count(thread) + kThreadSettingCalls,
      .bytes = kListBytes + rebuild_thread_bytes(thread) + rebuild_thread_setting_bytes(thread)};
  if (const auto* credentials = credentials_of(image, thread)) {
    needs.calls += rebuild_credential_calls(*credentials);
    needs.bytes += rebuild_credential_bytes(*credentials);
  }
  if (const auto* seccomp = own_seccomp_of(image, thread)) {
    needs.calls += rebuild_seccomp_calls(*seccomp);
    needs.bytes += rebuild_seccomp_bytes(*seccomp);
  }
  needs.bytes = (needs.bytes + 63) / 64 * 64;
  return needs;
}

std::size_t area_bytes(const state::ProcessT& image) {
  std::size_t bytes = kPageSize + kLeaderBytes;
  for (const auto& thread : image.threads) bytes += needs_of(image, *thread).bytes;
  return up_to_page(bytes);
}

bool has_bare_signals(const state::ProcessT& image) {
  return image.signals->pending_bare != 0 ||
         std::ranges::any_of(image.threads, [](const auto& t) { return t->pending_bare != 0; });
}

/// A signal that is pending nowhere in the image and that does nothing special when it is sent.
int choose_report_signal(const state::ProcessT& image) {
  constexpr std::array kPossible{SIGURG,  SIGWINCH, SIGCHLD, SIGUSR1,
                                 SIGUSR2, SIGIO,    SIGALRM, SIGPIPE};
  sys::SignalMask pending = signals_in(image.signals->pending) | image.signals->pending_bare;
  for (const auto& thread : image.threads)
    pending |= signals_in(thread->pending) | thread->pending_bare;
  for (const int signal : kPossible)
    if ((pending >> (signal - 1) & 1) == 0) return signal;
  throw Error{Errc::incompatible, "every signal that a restore could use is pending in the image"};
}

bool wants_writable_file(const state::Mapping& mapping) {
  return mapping.shared() && has(mapping, MappingFlag::may_write);
}

sys::Status own_status() {
  auto status = sys::Status::read(sys::current_process());
  if (!status) throw Error{Errc::io, "read /proc/self/status: /proc is needed"};
  return std::move(*status);
}

std::uint64_t number(int descriptor) { return static_cast<std::uint64_t>(descriptor); }

}  // namespace

// ---- files and the first process --------------------------------------------------------------

ProcessRebuild::ProcessRebuild(const state::ProcessT& image, const PageStore& store,
                               const RestoreOptions& options, bool in_namespace,
                               std::span<const std::uint8_t> foreign_vdso)
    : image_(image), store_(store), options_(options), foreign_vdso_(foreign_vdso) {
  if (in_namespace) start_namespace();
  kept_files_.emplace(image_, store_, root_, options_.stop);
  plan_files();
  if (const ClockOffsets forward = clock_offsets(image_); forward.needed())
    sys::set_clocks_of_children_forward(forward.monotonic_ns, forward.boottime_ns);
  process_.emplace(area_bytes(image_), image_.pid, false);
  if (uses_seccomp(image_)) suspend_seccomp_of_stub(process_->pid());
  descriptions_ = rebuild_descriptions(
      image_, options_, root_, process_->pid(),
      [&](std::int32_t file, int flags) { return kept_files_->open(file, flags); });
  if (in_namespace) sys::make_children_in_own_namespace();
  plan_.emplace(*image_.descriptors, descriptions_, files_.size());
}

void ProcessRebuild::start_namespace() {
  init_.emplace(kInitBytes, 0, true);
  init_area_ = find_room(state::AddressSpaceT{}, init_->mappings(), kInitBytes);
  init_->map_area(init_area_);
  RemoteSyscalls remote{init_->area(), init_area_, 1};
  CallStream calls{remote, init_->leader(), CallList{remote.data_begin(), kInitListBytes, 64}};
  CallList& list = calls.room(8, 1024);
  // In a root directory that is no mount (chroot) it cannot be said of all, but of what the new
  // /proc lies on.
  const std::uint64_t nothing = list.put_string("none");
  list.try_call(SYS_mount, {nothing, list.put_string("/"), nothing, MS_REC | MS_PRIVATE, 0});
  list.call("make /proc private", SYS_mount,
            {nothing, list.put_string("/proc"), nothing, MS_REC | MS_PRIVATE, 0});
  list.call("mount /proc", SYS_mount,
            {list.put_string("proc"), list.put_string("/proc"), list.put_string("proc"),
             MS_NOSUID | MS_NODEV | MS_NOEXEC, 0});
  const std::array<std::uint64_t, 4> ignore{1, 0, 0, 0};  // SIG_IGN: children vanish by themselves
  list.call("ignore SIGCHLD", SYS_rt_sigaction, {SIGCHLD, list.put_value(ignore), 0, 8});
  list.call("outlive icecore", SYS_prctl, {PR_SET_PDEATHSIG, 0});
  list.call("name the init", SYS_prctl, {PR_SET_NAME, list.put_string("icecore-init")});
  calls.run();
  sys::make_children_in_namespace_of(init_->pidfd());
  root_ = fmt::format("/proc/{}/root", init_->pid());
}

void ProcessRebuild::plan_files() {
  const auto plan = [&](PlannedFile file) {
    files_.push_back(std::move(file));
    return files_.size() - 1;
  };
  for (const state::Mapping& mapping : image_.address_space->mappings) {
    if (mapping.kind() != MappingKind::file) continue;
    const bool writable = wants_writable_file(mapping);
    const bool known = std::ranges::any_of(mapped_files_, [&](const MappedFile& m) {
      return m.file == mapping.file() && m.writable == writable;
    });
    if (!known)
      mapped_files_.push_back(
          {mapping.file(), writable, plan({mapping.file(), {}, writable ? O_RDWR : O_RDONLY})});
  }
  executable_ = plan({image_.address_space->executable, {}, O_RDONLY});
  working_directory_ = plan({-1, root_ + image_.working_directory->path, O_PATH | O_DIRECTORY});
  if (init_) mount_namespace_ = plan({-1, fmt::format("/proc/{}/ns/mnt", init_->pid()), O_RDONLY});
}

sys::Fd ProcessRebuild::open_planned_file(std::size_t index) {
  const PlannedFile& planned = files_[index];
  return planned.file < 0 ? sys::open_file(planned.path, planned.flags)
                          : kept_files_->open(planned.file, planned.flags);
}

int ProcessRebuild::mapped_file_slot(const state::Mapping& mapping) const {
  const auto known = std::ranges::find_if(mapped_files_, [&](const MappedFile& m) {
    return m.file == mapping.file() && m.writable == wants_writable_file(mapping);
  });
  ICECORE_CHECK(known != mapped_files_.end());
  return plan_->slot_of_file(known->index);
}

// ---- address space ------------------------------------------------------------------------------

void ProcessRebuild::make_address_space() {
  const state::AddressSpaceT& image = *image_.address_space;
  std::uint64_t room = process_->area().size() + kVdsoRoom;
  for (const state::SharedObject& object : image.shared_objects) room += up_to_page(object.size());
  work_.start = find_room(image, process_->mappings(), room);
  work_.end = work_.start + room;
  work_.vdso = work_.start + process_->area().size();
  std::uint64_t object_at = work_.vdso + kVdsoRoom;
  segments_.emplace(image);
  work_.segments = segments_->ids();
  for (const state::SharedObject& object : image.shared_objects) {
    work_.shared_objects.push_back(object_at);
    object_at += up_to_page(object.size());
  }

  if (!foreign_vdso_.empty()) work_.own_vdso = find_high_room(image, kVdsoRoom);

  process_->map_area(work_.start);
  remote_.emplace(process_->area(), work_.start, image_.pid);
  remote_->report_with(choose_report_signal(image_));
  calls_.emplace(*remote_, process_->leader(),
                 CallList{remote_->data_begin(), kLeaderBytes, kLeaderCalls});

  // For a moment the process has descriptors beyond its own; its limits are set last.
  auto open_files = sys::resource_limit(process_->pid(), RLIMIT_NOFILE);
  open_files.soft = open_files.hard;
  sys::set_resource_limit(process_->pid(), RLIMIT_NOFILE, open_files);
  plan_->send(process_->socket(), descriptions_,
              [&](std::size_t index) { return open_planned_file(index); });
  plan_->receive(StubProcess::kSocket, *calls_);
  if (init_)
    calls_->call("enter the mount namespace", SYS_setns,
                 {number(plan_->slot_of_file(mount_namespace_)), CLONE_NEWNS});
  clear_address_space(process_->mappings(), work_, *calls_);
  rebuild_mappings(
      image, process_->mappings(), work_,
      [&](const state::Mapping& mapping) { return mapped_file_slot(mapping); }, *calls_);
  rebuild_memory_policies(image, *calls_);
  rebuild_bounds(image, plan_->slot_of_file(executable_), *calls_);
  calls_->run();
  kept_files_->seal();
  segments_->settle();
  memory_.emplace(process_->pid());
}

// ---- contents -----------------------------------------------------------------------------------

/// The number is that in the process, where it is still open.
std::pair<sys::Userfaultfd, int> ProcessRebuild::make_userfaultfd(sys::Userfaultfd::Use use) {
  // Who fills memory before the process runs needs no faults of the kernel, and so no privilege.
  constexpr std::uint64_t kUserModeOnly = 1;
  const bool running = use == sys::Userfaultfd::Use::events;
  CallList& list = calls_->room(1, 0);
  const std::size_t made =
      list.try_call(SYS_userfaultfd, {O_CLOEXEC | O_NONBLOCK | (running ? 0 : kUserModeOnly)});
  const std::int64_t result = calls_->run_for(made);
  if (result == -EPERM)
    throw Error{Errc::permission,
                "load memory when it is touched: userfaultfd: Operation not permitted: set the "
                "sysctl vm.unprivileged_userfaultfd to 1 or give CAP_SYS_PTRACE (access to "
                "/dev/userfaultfd alone is not enough), or restore with --eager",
                EPERM};
  if (result < 0) sys::throw_errno(static_cast<int>(-result), "make a userfaultfd in the process");
  const auto theirs = static_cast<int>(result);
  return {sys::Userfaultfd{sys::copy_descriptor(process_->pidfd(), theirs), use}, theirs};
}

/// Calls of the vdso that the process knows go to that of this kernel.
void ProcessRebuild::lead_vdso() const {
  std::uint64_t address = work_.own_vdso;
  for (const sys::Vma& part : vdso_parts(process_->mappings())) {
    if (part.name == "[vdso]") {
      std::vector<std::uint8_t> here(part.size());
      memory_->read(address, std::as_writable_bytes(std::span{here}));
      const auto text = lead_to(foreign_vdso_, here, address);
      memory_->write(foreign_vdso_mapping(*image_.address_space).start(),
                     std::as_bytes(std::span{text}));
    }
    address += part.size();
  }
}

std::uint64_t ProcessRebuild::fill_memory(bool lazy, const ProgressCallback& progress,
                                          const std::stop_token& stop) {
  if (!foreign_vdso_.empty()) lead_vdso();
  const auto [ranges, registered] = plan_fill(image_, store_, work_, lazy);
  if (registered.empty()) return fill_pages(store_, ranges, *memory_, nullptr, progress, stop);

  const auto [missing, theirs] = make_userfaultfd(sys::Userfaultfd::Use::fill);
  for (const auto& [start, end] : registered) missing.register_missing(start, end);
  const std::uint64_t bytes = fill_pages(store_, ranges, *memory_, &missing, progress, stop);
  for (const auto& [start, end] : registered) missing.unregister(start, end);
  calls_->call("close the userfaultfd", SYS_close, {number(theirs)});
  return bytes;
}

ProcessRebuild::Lazy ProcessRebuild::make_lazy() {
  auto [faults, theirs] = make_userfaultfd(sys::Userfaultfd::Use::events);
  calls_->call("close the userfaultfd", SYS_close, {number(theirs)});
  calls_->run();
  MissingPages missing;
  for (const StoredRange& range : lazy_ranges(image_, store_.runs())) missing.add(range);
  for (const auto& [start, end] : ranges_to_register(image_, store_.runs()))
    faults.register_missing(start, end);
  return {std::move(faults), std::move(missing)};
}

void ProcessRebuild::map_file_pages(std::span<const FilePages> used) {
  for (const sys::PageRange& place : places_of(*image_.address_space, used)) {
    CallList& list = calls_->room(2, 0);
    list.try_call(SYS_madvise, {place.start, place.end - place.start, MADV_POPULATE_READ});
    list.touch(place.start, (place.end - place.start) / kPageSize);
  }
  calls_->run();
}

void ProcessRebuild::touch_private_pages() {
  const sys::PagemapScan pagemap{process_->pid()};
  std::vector<sys::PageRange> present, guards;
  for (const state::Mapping& mapping : image_.address_space->mappings)
    if ((mapping.protection() & PROT_READ) != 0)
      pagemap.private_pages(mapping.start(), mapping.end(), present, guards);
  for (const sys::PageRange& range : present)
    calls_->room(1, 0).touch(range.start, (range.end - range.start) / kPageSize);
  calls_->run();
}

// ---- everything else ----------------------------------------------------------------------------

void ProcessRebuild::set_attributes() {
  rebuild_guards_and_locks(*image_.address_space, *calls_);
  rebuild_attributes(image_, plan_->slot_of_file(working_directory_),
                     stands_on_our_terminal(image_, options_), *calls_);
  calls_->run();
  CallList& list = calls_->room(64, 64 * 48);
  rebuild_signal_actions(*image_.signals, list);
  plan_->place(*calls_);
  plan_->finish(*calls_);
  calls_->run();
}

/// Ids of the threads as we see them, in the order of the image.
std::vector<pid_t> ProcessRebuild::thread_ids() const {
  std::vector<pid_t> ids;
  if (!init_) {
    for (const auto& thread : image_.threads) ids.push_back(thread->tid);
    return ids;
  }
  std::map<pid_t, pid_t> outer;
  for (const pid_t tid : sys::list_threads(process_->pid()))
    if (const auto status = sys::Status::read(tid))
      outer[static_cast<pid_t>(status->numbers("NSpid").back())] = tid;
  for (const auto& thread : image_.threads) ids.push_back(outer[thread->tid]);
  return ids;
}

void ProcessRebuild::make_threads() {
  constexpr std::size_t kBytesAThread = 160;
  for (std::size_t i = 1; i < image_.threads.size(); ++i) {
    CallList& list = calls_->room(1, kBytesAThread);
    rebuild_clone(*image_.threads[i], list);
  }
  calls_->run();
  const std::vector<pid_t> ids = thread_ids();
  for (std::size_t i = 1; i < ids.size(); ++i) process_->adopt(ids[i], image_.threads[i]->tid);
  rebuild_signal_owners(*image_.descriptors, descriptions_, ids);
  settle_descriptors(*image_.descriptors, descriptions_, root_);

  rebuild_from_outside(image_, process_->pid());
  rebuild_limits(image_, process_->pid());
  if (const std::int32_t common = common_seccomp(image_); common >= 0) {
    const state::SeccompT& seccomp = *image_.seccomp[static_cast<std::size_t>(common)];
    for (const auto& filter : seccomp.filters)
      rebuild_seccomp_filter(*filter, true, calls_->room(1, rebuild_seccomp_bytes(*filter)));
  }
  calls_->run();
  set_up_threads();
  for (std::size_t i = 0; i < ids.size(); ++i) rebuild_scheduling(*image_.threads[i], ids[i]);

  rebuild_timers(image_, *calls_);
  CallList& list =
      calls_->room(image_.signals->pending.size() / 128, image_.signals->pending.size() * 2);
  rebuild_pending_signals(image_.signals->pending, false, image_.pid, image_.pid, list);
  calls_->run();
  if (has_bare_signals(image_)) raise_bare_signals();
  rebuild_last_attributes(image_, *calls_);
  calls_->run();
}

/// Everything that the threads set for themselves, all at the same time.
void ProcessRebuild::set_up_threads() {
  const state::CredentialsT ours = credentials_of_stub(process_->pid());
  std::vector<CallList> lists;
  std::vector<RemoteSyscalls::Job> jobs;
  lists.reserve(image_.threads.size());
  std::uint64_t cell = remote_->data_begin() + kLeaderBytes;
  for (std::size_t i = 0; i < image_.threads.size(); ++i) {
    const state::ThreadT& thread = *image_.threads[i];
    const Needs needs = needs_of(image_, thread);
    CallList& list = lists.emplace_back(cell, needs.bytes, needs.calls);
    rebuild_thread_calls(thread, image_.pid, list);
    rebuild_thread_settings(image_, thread, list);
    const auto* const seccomp = own_seccomp_of(image_, thread);
    const auto put_on_seccomp = [&] {
      if (seccomp != nullptr) rebuild_seccomp(*seccomp, list);
    };
    if (const auto* credentials = credentials_of(image_, thread))
      rebuild_credentials(*credentials, ours, list, put_on_seccomp);
    else
      put_on_seccomp();
    jobs.push_back({&process_->threads()[i], &list, uses_tile_data(thread)});
    cell += needs.bytes;
  }
  remote_->run(jobs);
}

void ProcessRebuild::raise_bare_signals() {
  const sys::ResourceLimit no_room{0, image_.limits[RLIMIT_SIGPENDING].hard()};
  constexpr std::size_t kMost = 64;
  CallList& limiting = calls_->room(1, sizeof no_room);
  limiting.call("limit the signal queue", SYS_prlimit64,
                {0, RLIMIT_SIGPENDING, limiting.put_value(no_room), 0});
  rebuild_bare_signals(image_.signals->pending_bare, false, image_.pid, image_.pid,
                       calls_->room(kMost, kMost * sizeof(siginfo_t)));
  calls_->run();
  for (std::size_t i = 0; i < image_.threads.size(); ++i) {
    const state::ThreadT& thread = *image_.threads[i];
    if (thread.pending_bare == 0) continue;
    CallStream calls{*remote_, process_->threads()[i],
                     CallList{remote_->data_begin(), kLeaderBytes, kLeaderCalls}};
    rebuild_bare_signals(thread.pending_bare, true, image_.pid, thread.tid,
                         calls.room(kMost, kMost * sizeof(siginfo_t)));
    calls.run();
  }
}

void ProcessRebuild::rebuild_timeouts() {
  // The kernel restarts these by itself only for the thread that was interrupted in them.
  constexpr long kRestartBlock = -516;
  constexpr long kRestartNoHand = -514;
  for (std::size_t i = 0; i < image_.threads.size(); ++i) {
    const state::ThreadT& thread = *image_.threads[i];
    registers_.push_back(registers_of(thread));
    sys::Registers& registers = registers_.back();
    if (thread.timeout_left_ns >= 0 && reads_timeout_anew(registers)) sleep_again_.push_back(i);
    if (static_cast<long>(registers.rax) != kRestartBlock) continue;
    if (thread.timeout_left_ns < 0) {
      // It waits forever, or until a point in time: the same call again does the same.
      registers.rax = static_cast<unsigned long long>(kRestartNoHand);
      continue;
    }
    const std::chrono::nanoseconds left{thread.timeout_left_ns};
    const TimeoutScratch scratch{.syscall_instruction = remote_->syscall_instruction(),
                                 .timespec = remote_->data_begin()};
    const std::array<std::int64_t, 2> timespec{left.count() / 1'000'000'000,
                                               left.count() % 1'000'000'000};
    std::memcpy(process_->area().data() + kPageSize, timespec.data(), sizeof timespec);
    registers = rebuild_timeout(process_->threads()[i], registers, left, scratch);
  }
}

void ProcessRebuild::set_registers() {
  rebuild_seals(*image_.address_space, *calls_);
  calls_->run();
  rebuild_timeouts();
  sys::XstateBuffer buffer;
  xstate_bytes_ = sys::xstate(process_->pid(), buffer).size();
  for (std::size_t i = 1; i < image_.threads.size(); ++i)
    rebuild_registers(*image_.threads[i], registers_[i], process_->threads()[i].tid(),
                      xstate_bytes_);
  if (!has_running_timers(image_)) leave();
}

/// The leader's last act is to unmap the code it runs.
void ProcessRebuild::leave() {
  Tracee& leader = process_->leader();
  single_syscall(leader, remote_->syscall_instruction(), SYS_close, {number(plan_->socket_slot())});
  single_syscall(leader, remote_->syscall_instruction(), SYS_munmap,
                 {work_.start, work_.end - work_.start});
  stop_before_user_code(leader);
  rebuild_registers(*image_.threads[0], registers_[0], leader.tid(), xstate_bytes_);
}

/// The init goes its own way: it ends when the process and all its orphans have.
sys::Fd ProcessRebuild::release_init() {
  const int pidfd = process_->pidfd().get();
  sys::send_descriptors(init_->socket(), {&pidfd, 1});
  Tracee& leader = init_->leader();
  {
    RemoteSyscalls remote{init_->area(), init_area_, 1};
    CallStream calls{remote, leader, CallList{remote.data_begin(), kInitListBytes, 64}};
    receive_descriptors(StubProcess::kSocket, 1,
                        calls);  // as 0: all below the socket but 3 is free
    calls.call("close descriptors", SYS_close_range, {1, ~0U, 0});
    calls.run();
  }
  single_syscall(leader, init_->syscall_instruction(), SYS_munmap, {init_area_, kInitBytes});
  sys::Registers registers = leader.registers();
  registers.rip = init_->init_code();
  registers.rbx = 0;
  registers.orig_rax = ~0ULL;
  sys::set_registers(leader.tid(), registers);
  return init_->let_run();
}

/// Before the other threads run: they must not see the timespec that a call begins with.
void ProcessRebuild::begin_timeouts() {
  for (const std::size_t i : sleep_again_)
    sleep_again(process_->threads()[i], BorrowedTimeout{registers_[i], process_->pidfd(), *memory_},
                std::chrono::nanoseconds{image_.threads[i]->timeout_left_ns});
}

ProcessRebuild::Running ProcessRebuild::let_run() {
  // Timers begin with the process, however long it was kept waiting; if it was not killed
  // meanwhile.
  if (has_running_timers(image_) && sys::is_in_tracing_stop(process_->pid())) {
    start_timers(image_, *calls_);
    calls_->run();
    await_expired_timers(image_, thread_ids());
    leave();
  }
  give_terminal(image_, options_, process_->pid(), process_->pidfd());
  begin_timeouts();
  Running running{.pid = process_->pid(), .pidfd = {}};
  if (init_) {
    running.init = init_->pid();
    running.init_pidfd = release_init();
  }
  release_connections(*image_.descriptors, descriptions_, options_);
  // What the process closes is closed from its first instruction on: a pipe ends, a name is free.
  descriptions_.clear();
  kept_files_.reset();
  // Whoever is let go of finds it waiting, before any instruction of the program.
  if (image_.stopped) sys::send_signal(process_->pidfd(), SIGSTOP);
  running.pidfd = process_->let_run();
  return running;
}

void check_process(const state::ProcessT& image, const RestoreOptions& options,
                   Refusals& refusals) {
  for (const auto& file : image.files)
    if (const std::string reason = difference(*file); !reason.empty())
      refusals.add("file {}: {}", file->path, reason);
  check_descriptors(image, options, refusals);
  refuse_lacking_memory(*image.address_space, refusals);
  refuse_lacking_nodes(image, refusals);
  check_segments(*image.address_space, refusals);
  const sys::Status own = own_status();
  refuse_lacking_rights(image, own, refusals);
  refuse_lacking_settings(image, own, refusals);
  refuse_lacking_credentials(image, own, refusals);
  refuse_lacking_seccomp(image, own, refusals);
  refuse_lacking_landlock(image, refusals);
  refuse_lacking_clocks(image, own, refusals);
}

std::vector<pid_t> ids_in_use(const state::ProcessT& image) {
  std::vector<pid_t> taken;
  for (const auto& thread : image.threads)
    if (sys::pid_in_use(thread->tid)) taken.push_back(thread->tid);
  return taken;
}

}  // namespace icecore
