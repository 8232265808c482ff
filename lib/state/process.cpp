// SPDX-License-Identifier: Apache-2.0
#include "state/process.hpp"

#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <future>
#include <optional>
#include <string_view>

#include "image/mapping.hpp"
#include "state/address_space.hpp"
#include "state/attributes.hpp"
#include "state/credentials.hpp"
#include "state/descriptors/descriptors.hpp"
#include "state/landlock.hpp"
#include "state/memory_policies.hpp"
#include "state/seccomp.hpp"
#include "state/signals.hpp"
#include "state/thread_settings.hpp"
#include "state/threads.hpp"
#include "state/timers.hpp"
#include "sys/cgroup.hpp"
#include "sys/proc_maps.hpp"
#include "tracee/foothold.hpp"
#include "tracee/remote_syscalls.hpp"

namespace icecore {
namespace {

constexpr std::size_t kQuestions = 112;
constexpr std::size_t kQuestionBytes = std::size_t{16} << 10;

constexpr std::size_t kThreadCalls = ThreadQuestions::kCalls + ThreadSettingQuestions::kCalls +
                                     CredentialQuestions::kCalls + LandlockQuestion::kCalls;
constexpr std::size_t kThreadBytes = ThreadQuestions::kBytes + ThreadSettingQuestions::kBytes +
                                     CredentialQuestions::kBytes + LandlockQuestion::kBytes +
                                     kListBytes;

sys::SignalMask pending_anywhere(const Capture& capture) {
  sys::SignalMask pending = capture.statuses.front().number("ShdPnd", 16);
  for (const sys::Status& status : capture.statuses) pending |= status.number("SigPnd", 16);
  return pending;
}

/// A signal that does nothing to the process if it ever reaches it: see RemoteSyscalls.
int choose_report_signal(const Capture& capture) {
  constexpr std::array kHarmless{SIGURG, SIGWINCH, SIGCHLD, SIGCONT};
  constexpr std::array kStopping{SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};
  const sys::Status& status = capture.statuses.front();
  const sys::SignalMask caught = status.number("SigCgt", 16);
  const sys::SignalMask ignored = status.number("SigIgn", 16);
  const auto in = [](sys::SignalMask mask, int signal) { return (mask >> (signal - 1) & 1) != 0; };
  // These take each other out of the queue as soon as they are sent, and SIGCONT ends a stop.
  sys::SignalMask taken = pending_anywhere(capture);
  const bool continuing_matters =
      was_stopped(capture) ||
      std::ranges::any_of(kStopping, [&](int signal) { return in(taken, signal); });
  if (continuing_matters) taken |= sys::SignalMask{1} << (SIGCONT - 1);
  for (const int signal : kStopping) taken |= sys::SignalMask{1} << (signal - 1);
  for (const int signal : kHarmless)
    if (!in(taken, signal) && !in(caught, signal)) return signal;
  for (int signal = 1; signal < SIGRTMAX; ++signal)
    if (in(ignored, signal) && !in(taken, signal) && signal != SIGKILL) return signal;
  for (const int signal : kHarmless)
    if (!in(taken, signal)) return signal;
  throw Error{Errc::unsupported,
              fmt::format("process {} cannot be snapshotted:", capture.pid),
              {"SIGURG, SIGWINCH, SIGCHLD and SIGCONT are all pending"}};
}

/// Answers that only the process itself can give, from all rooms in one go.
class Interview {
 public:
  Interview(Capture& capture, Foothold& foothold, const std::vector<sys::ListedTimer>& timers,
            const std::vector<sys::Vma>& vmas, LandlockWitnesses& witnesses)
      : threads_(capture.process.threads()),
        leader_calls_(kQuestions + kThreadCalls + TimerQuestions::calls(timers.size()) +
                      MemoryPolicyQuestions::calls(vmas)),
        leader_bytes_(kQuestionBytes + kThreadBytes + TimerQuestions::bytes(timers.size()) +
                      MemoryPolicyQuestions::bytes(vmas)),
        remote_(foothold, capture.process.leader(), capture.memory,
                leader_bytes_ + (threads_.size() - 1) * kThreadBytes),
        lists_(make_lists()),
        time_(lists_.front(), timers),
        signals_(lists_.front()),
        attributes_(lists_.front()) {
    std::vector<RemoteSyscalls::Job> jobs;
    for (std::size_t i = 0; i < threads_.size(); ++i) {
      questions_.emplace_back(lists_[i]);
      settings_.emplace_back(lists_[i]);
      credentials_.emplace_back(lists_[i]);
      landlock_.emplace_back(lists_[i], witnesses.of_thread(i));
      jobs.push_back({&threads_[i], &lists_[i]});
    }
    MemoryPolicyQuestions policies{vmas, lists_.front()};
    remote_.run(jobs);
    CallStream calls{remote_, capture.process.leader(),
                     CallList{remote_.data_begin(), leader_bytes_, leader_calls_}};
    policies_ = policies.answers(lists_.front(), calls);
    for (Tracee& thread : threads_) thread.put_back();
  }

  void answers_of_leader(Capture& capture, state::ProcessT& process,
                         state::AddressSpaceT& address_space) const {
    attributes_.answers(lists_.front(), capture, process, address_space);
    process.signals = signals_.answers(lists_.front(), capture);
    process.time = time_.answers(lists_.front(), capture);
  }

  MemoryPolicies take_memory_policies() { return std::move(policies_); }

  std::unique_ptr<state::ThreadT> answers_of_thread(std::size_t i, Capture& capture,
                                                    const SleepObserver& sleeps,
                                                    state::ProcessT& process) const {
    const Tracee& thread = threads_[i];
    const sys::Status& status = capture.statuses[i];
    auto state = capture_thread(capture, thread, questions_[i], lists_[i], status, sleeps);
    settings_[i].answers(lists_[i], capture, thread, status, *state);
    state->credentials = credentials_[i].answers(lists_[i], capture, thread, status, process);
    state->seccomp = capture_seccomp(capture, thread, status, process);
    return state;
  }

  void answers_of_all(Capture& capture, LandlockWitnesses& witnesses,
                      state::ProcessT& process) const {
    std::vector<LandlockQuestion::Answer> answers;
    for (std::size_t i = 0; i < threads_.size(); ++i)
      answers.push_back(landlock_[i].answer(lists_[i]));
    capture_landlock(capture, answers, witnesses, process);
  }

  /// mlockall(MCL_FUTURE) shows in nothing but that fresh memory, such as ours, is locked.
  state::NewMemory new_memory(const Capture& capture) const {
    const auto now = sys::Status::read(capture.pid);
    if (!now || now->number("VmLck") <= capture.statuses.front().number("VmLck"))
      return state::NewMemory::unlocked;
    for (const sys::Vma& vma : sys::read_smaps(capture.pid))
      if (vma.start <= remote_.data_begin() && remote_.data_begin() < vma.end)
        return vma.has_flag("lf") ? state::NewMemory::locked_on_fault : state::NewMemory::locked;
    return state::NewMemory::locked;
  }

 private:
  /// One for each thread, side by side; that of the leader is also asked about the process.
  std::vector<CallList> make_lists() const {
    std::vector<CallList> lists{{remote_.data_begin(), leader_bytes_, leader_calls_}};
    std::uint64_t cell = remote_.data_begin() + leader_bytes_;
    for (std::size_t i = 1; i < threads_.size(); ++i, cell += kThreadBytes)
      lists.emplace_back(cell, kThreadBytes, kThreadCalls);
    return lists;
  }

  std::span<Tracee> threads_;
  std::size_t leader_calls_;
  std::size_t leader_bytes_;
  RemoteSyscalls remote_;
  std::vector<CallList> lists_;
  TimerQuestions time_;
  SignalQuestions signals_;
  AttributeQuestions attributes_;
  MemoryPolicies policies_;
  std::vector<ThreadQuestions> questions_;
  std::vector<ThreadSettingQuestions> settings_;
  std::vector<CredentialQuestions> credentials_;
  std::vector<LandlockQuestion> landlock_;
};

/// For their flags the kernel walks over every page: on another CPU, while the process is asked.
std::future<std::vector<sys::Vma>> begin_to_read_flags(pid_t pid) {
  const sys::SignalsBlocked blocked;  // the thread inherits the mask
  return std::async(std::launch::async | std::launch::deferred, sys::read_smaps, pid);
}

/// What has been read while memory of ours was in the process, which may be beside its own, or be
/// one mapping with it.
std::vector<sys::Vma> without_ours(std::vector<sys::Vma> read, const std::vector<sys::Vma>& places,
                                   pid_t pid) {
  std::erase_if(read, [&](const sys::Vma& vma) {
    const auto place = std::ranges::lower_bound(places, vma.start, {}, &sys::Vma::start);
    return place == places.end() || place->start != vma.start || place->end != vma.end;
  });
  return read.size() == places.size() ? std::move(read) : sys::read_smaps(pid);
}

void refuse_unshared_tables(Capture& capture) {
  for (const Tracee& thread : capture.process.threads())
    if (!sys::share_descriptors_and_folder(capture.pid, thread.tid()))
      capture.refusals.add(
          "thread {}: has descriptors or a working directory of its own "
          "(unshare): cannot be kept",
          thread.tid());
}

}  // namespace

void leave_vdso(FrozenProcess& process, const std::stop_token& stop) {
  constexpr std::uint64_t kVdsoAddress = 33;      // AT_SYSINFO_EHDR
  constexpr std::uint64_t kVdsoBytes = 4 * 4096;  // of all that are known
  if (std::ranges::all_of(process.threads(),
                          [](const Tracee& thread) { return in_syscall(thread.registers()); }))
    return;
  const std::string auxv = sys::read_file(fmt::format("/proc/{}/auxv", process.pid()));
  for (std::size_t at = 0; at + 16 <= auxv.size(); at += 16) {
    std::array<std::uint64_t, 2> entry;
    std::memcpy(entry.data(), auxv.data() + at, sizeof entry);
    if (entry[0] == kVdsoAddress) process.leave(entry[1], entry[1] + kVdsoBytes, stop);
  }
}

void refuse_to_enter(Capture& capture) {
  const auto threads = capture.process.threads();
  for (std::size_t i = 0; i < threads.size(); ++i) {
    refuse_to_enter(threads[i], capture.refusals);
    suspend_seccomp(threads[i], capture.statuses[i], capture.refusals);
  }
}

CapturedProcess capture_process(Capture& capture, const SleepObserver& sleeps) {
  // Before anything of ours is in the process.
  const std::vector<sys::Vma> places = sys::read_maps(capture.pid);
  auto flags = begin_to_read_flags(capture.pid);
  LandlockWitnesses witnesses{capture};

  CapturedProcess captured{.state = std::make_unique<state::ProcessT>(), .vdso = {}, .pages = {}};
  state::ProcessT& process = *captured.state;
  process.descriptors = capture_descriptors(capture, process.terminal);
  refuse_unshared_tables(capture);
  state::AddressSpaceT answers;
  {
    Foothold foothold{capture.memory, places, choose_report_signal(capture)};
    const auto asked = std::chrono::steady_clock::now();
    Interview interview{capture, foothold, sys::list_timers(capture.pid), places, witnesses};
    answers.policies = interview.take_memory_policies();
    answers.new_memory = interview.new_memory(capture);
    interview.answers_of_leader(capture, process, answers);
    for (std::size_t i = 0; i < capture.process.threads().size(); ++i)
      process.threads.push_back(interview.answers_of_thread(i, capture, sleeps, process));
    interview.answers_of_all(capture, witnesses, process);
    take_signals_of_timers(capture, std::chrono::steady_clock::now() - asked, process);
  }
  process.stopped = was_stopped(capture);
  // Nothing of ours is in the process any more, nor of an icecore that was killed.
  const std::vector<sys::Vma> vmas = without_ours(flags.get(), places, capture.pid);
  captured.vdso = capture_vdso(capture, vmas);
  CapturedAddressSpace address_space = capture_address_space(capture, vmas);
  captured.pages = std::move(address_space.pages);
  process.address_space = std::move(address_space.state);
  process.address_space->policies = std::move(answers.policies);
  process.address_space->new_memory = answers.new_memory;
  process.address_space->brk = answers.brk;
  return captured;
}

namespace {

/// A fork has the rest of memory, and as it is now.
bool is_kept_from_forks(const state::Mapping& mapping) {
  using Flag = state::MappingFlag;
  constexpr std::array kFlags{Flag::dont_fork, Flag::wipe_on_fork, Flag::droppable, Flag::huge_2m,
                              Flag::huge_1g};
  return std::ranges::any_of(kFlags, [&](Flag flag) { return has(mapping, flag); });
}

/// Whether any page is to be stored that a fork would not have.
bool has_pages_kept_from_forks(const Capture& capture, const CapturedProcess& captured) {
  std::vector<PageSource> kept;
  auto source = captured.pages.begin();
  for (const state::Mapping& mapping : captured.state->address_space->mappings)
    for (; source != captured.pages.end() && source->start < mapping.end(); ++source)
      if (source->which == PageSource::Which::shared_data || is_kept_from_forks(mapping))
        kept.push_back(*source);
  return !select_pages(capture.pid, kept, MissingPages{}).runs.empty();
}

bool is_our_child(const Capture& capture) {
  const auto stat = sys::read_stat(capture.pid);
  return stat && stat->parent == sys::current_process() &&
         capture.statuses.front().numbers("NSpid").size() == 1;
}

/// Every page may be written to, and so be there twice, before the copy has gone.  Beyond its limit
/// of memory the kernel would kill the process.
bool has_room_for_copies(const Capture& capture) {
  const sys::Status& status = capture.statuses.front();
  const std::uint64_t bytes = (status.number("RssAnon") + status.number("VmSwap")) * 1024;
  const auto limit = sys::memory_room(capture.pid);
  if (limit && limit->bytes < bytes) return false;
  constexpr std::string_view kField = "MemAvailable:";
  const std::string machine = sys::readable_text("/proc/meminfo");
  const std::size_t at = machine.find(kField);
  return at != machine.npos &&
         std::strtoull(machine.c_str() + at + kField.size(), nullptr, 10) * 1024 >= 2 * bytes;
}

}  // namespace

std::optional<ProcessCopy> try_copy_process(Capture& capture, CapturedProcess& captured) {
  // What is kept of files is read from them: it would be what the process has made of it since.
  if (capture.is_being_loaded || !capture.files.kept().empty() || !is_our_child(capture) ||
      !has_room_for_copies(capture) || has_pages_kept_from_forks(capture, captured))
    return std::nullopt;
  sys::Vma vdso;
  for (const state::Mapping& mapping : captured.state->address_space->mappings)
    if (mapping.kind() == state::MappingKind::vdso &&
        mapping.end() - mapping.start() == captured.vdso.size()) {
      vdso.start = mapping.start();
      vdso.end = mapping.end();
      vdso.name = "[vdso]";
      vdso.protection = PROT_READ | PROT_EXEC;
    }
  if (vdso.name.empty()) return std::nullopt;
  Foothold foothold{capture.memory, {vdso}, choose_report_signal(capture)};
  auto copy = ProcessCopy::try_make(capture.process, foothold);
  // Shared memory, which had no pages, may have some by now.
  if (copy)
    std::erase_if(captured.pages, [](const PageSource& source) {
      return source.which == PageSource::Which::shared_data;
    });
  return copy;
}

}  // namespace icecore
