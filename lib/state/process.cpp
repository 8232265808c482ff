// SPDX-License-Identifier: Apache-2.0
#include "state/process.hpp"

#include <signal.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>
#include <string_view>

#include "state/address_space.hpp"
#include "state/attributes.hpp"
#include "state/descriptors/descriptors.hpp"
#include "state/signals.hpp"
#include "state/threads.hpp"
#include "sys/proc_maps.hpp"
#include "tracee/foothold.hpp"
#include "tracee/remote_syscalls.hpp"

namespace icecore {
namespace {

constexpr std::size_t kLeaderCalls = 96;
constexpr std::size_t kLeaderBytes = std::size_t{16} << 10;

sys::SignalMask pending_anywhere(const Capture& capture, const sys::Status& leader) {
  sys::SignalMask pending = leader.number("SigPnd", 16) | leader.number("ShdPnd", 16);
  for (const Tracee& thread : capture.process.threads().subspan(1))
    for (const siginfo_t& info : sys::pending_signals(thread.tid(), false))
      pending |= sys::SignalMask{1} << (info.si_signo - 1);
  return pending;
}

/// A signal that does nothing to the process if it ever reaches it: see RemoteSyscalls.
int choose_report_signal(const Capture& capture) {
  constexpr std::array kHarmless{SIGURG, SIGWINCH, SIGCHLD, SIGCONT};
  const auto status = sys::Status::read(capture.pid);
  if (!status) throw Error{Errc::target_gone, fmt::format("process {} has ended", capture.pid)};
  const sys::SignalMask pending = pending_anywhere(capture, *status);
  const sys::SignalMask caught = status->number("SigCgt", 16);
  const sys::SignalMask ignored = status->number("SigIgn", 16);
  const auto in = [](sys::SignalMask mask, int signal) { return (mask >> (signal - 1) & 1) != 0; };
  for (const int signal : kHarmless)
    if (!in(pending, signal) && !in(caught, signal)) return signal;
  for (int signal = 1; signal < SIGRTMAX; ++signal)
    if (in(ignored, signal) && !in(pending, signal) && signal != SIGSTOP && signal != SIGKILL)
      return signal;
  for (const int signal : kHarmless)
    if (!in(pending, signal)) return signal;
  throw Error{Errc::unsupported,
              fmt::format("process {} cannot be snapshotted:", capture.pid),
              {"SIGURG, SIGWINCH, SIGCHLD and SIGCONT are all pending"}};
}

/// Answers that only the process itself can give, from all rooms in one go.
class Interview {
 public:
  Interview(Capture& capture, Foothold& foothold, const std::vector<sys::Vma>& vmas)
      : threads_(capture.process.threads()),
        remote_(foothold, capture.process.leader(), capture.memory,
                kLeaderBytes + threads_.size() * ThreadQuestions::kBytes),
        leader_list_(remote_.data_begin(), kLeaderBytes, kLeaderCalls),
        signals_(leader_list_),
        attributes_(leader_list_) {
    refuse_locking_of_everything_new(capture, vmas);
    std::uint64_t cell = remote_.data_begin() + kLeaderBytes;
    for (std::size_t i = 0; i < threads_.size(); ++i, cell += ThreadQuestions::kBytes) {
      lists_.emplace_back(cell, ThreadQuestions::kBytes, ThreadQuestions::kCalls);
      questions_.emplace_back(lists_.back());
    }
    remote_.run(capture.process.leader(), leader_list_);
    capture.process.leader().put_back();
    std::vector<RemoteSyscalls::Job> jobs;
    for (std::size_t i = 0; i < threads_.size(); ++i) jobs.push_back({&threads_[i], &lists_[i]});
    remote_.run(jobs);
    for (Tracee& thread : threads_) thread.put_back();
  }

  const CallList& leader() const { return leader_list_; }
  const SignalQuestions& signals() const { return signals_; }
  const AttributeQuestions& attributes() const { return attributes_; }
  const CallList& thread(std::size_t i) const { return lists_[i]; }
  const ThreadQuestions& thread_questions(std::size_t i) const { return questions_[i]; }

 private:
  /// mlockall(MCL_FUTURE) shows in nothing but that fresh memory, such as ours, is locked.
  void refuse_locking_of_everything_new(Capture& capture,
                                        const std::vector<sys::Vma>& before) const {
    const auto locked = [](const sys::Vma& vma) { return vma.has_flag("lo"); };
    if (std::ranges::none_of(before, locked)) return;
    const auto now = sys::read_smaps(capture.pid);
    const auto ours = std::ranges::find_if(now, [&](const sys::Vma& vma) {
      return vma.start <= remote_.data_begin() && remote_.data_begin() < vma.end;
    });
    if (ours != now.end() && locked(*ours))
      capture.refusals.add(
          "memory: all new memory is locked (mlockall with MCL_FUTURE): cannot be "
          "kept yet");
  }

  std::span<Tracee> threads_;
  RemoteSyscalls remote_;
  CallList leader_list_;
  SignalQuestions signals_;
  AttributeQuestions attributes_;
  std::vector<CallList> lists_;
  std::vector<ThreadQuestions> questions_;
};

void refuse_unshared_tables(Capture& capture) {
  for (const Tracee& thread : capture.process.threads())
    if (!sys::share_descriptors_and_folder(capture.pid, thread.tid()))
      capture.refusals.add(
          "thread {}: has descriptors or a working directory of its own "
          "(unshare): cannot be kept",
          thread.tid());
}

}  // namespace

CapturedProcess capture_process(Capture& capture, const SleepObserver& sleeps) {
  // Before anything of ours is in the process.
  const std::vector<sys::Vma> vmas = sys::read_smaps(capture.pid);
  CapturedAddressSpace address_space = capture_address_space(capture, vmas);

  CapturedProcess captured{.state = std::make_unique<state::ProcessT>(),
                           .vdso = {},
                           .pages = std::move(address_space.pages)};
  state::ProcessT& process = *captured.state;
  process.descriptors = capture_descriptors(capture);
  refuse_unshared_tables(capture);
  {
    Foothold foothold{capture.memory, vmas, choose_report_signal(capture)};
    const Interview interview{capture, foothold, vmas};
    interview.attributes().answers(interview.leader(), capture, process, *address_space.state);
    process.signals = interview.signals().answers(interview.leader(), capture);
    const auto threads = capture.process.threads();
    for (std::size_t i = 0; i < threads.size(); ++i)
      process.threads.push_back(capture_thread(capture, threads[i], interview.thread_questions(i),
                                               interview.thread(i), sleeps));
  }
  // Nothing of ours is in the process any more, nor of an icecore that was killed.
  captured.vdso = capture_vdso(capture, vmas);
  process.address_space = std::move(address_space.state);
  return captured;
}

}  // namespace icecore
