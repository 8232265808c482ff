// SPDX-License-Identifier: Apache-2.0
#include "state/signals.hpp"

#include <signal.h>

#include <cstring>

namespace icecore {
namespace {

constexpr int kSignals = 64;
constexpr int kFirstRealTime = 32;  // the kernel's, not libc's SIGRTMIN
constexpr std::size_t kMaskBytes = 8;

/// As rt_sigaction(2) of x86-64 wants it; state::SignalAction has the same order.
struct KernelSigaction {
  std::uint64_t handler;
  std::uint64_t flags;
  std::uint64_t restorer;
  std::uint64_t mask;
};
static_assert(sizeof(KernelSigaction) == 32 && sizeof(siginfo_t) == 128);

constexpr sys::SignalMask only(int signal) { return sys::SignalMask{1} << (signal - 1); }

}  // namespace

SignalQuestions::SignalQuestions(CallList& list)
    : actions_(list.reserve(kSignals * sizeof(KernelSigaction))) {
  for (std::uint64_t signal = 1; signal <= kSignals; ++signal)
    list.call("read a signal action", SYS_rt_sigaction,
              {signal, 0, actions_ + (signal - 1) * sizeof(KernelSigaction), kMaskBytes});
}

std::unique_ptr<state::SignalsT> SignalQuestions::answers(const CallList& list,
                                                          const Capture& capture) const {
  auto signals = std::make_unique<state::SignalsT>();
  for (std::uint64_t i = 0; i < kSignals; ++i) {
    const auto action = list.value<KernelSigaction>(actions_ + i * sizeof(KernelSigaction));
    signals->actions.emplace_back(action.handler, action.flags, action.restorer, action.mask);
  }
  const QueuedSignals queued = queued_signals(capture.process.leader().tid(), true,
                                              capture.statuses.front().number("ShdPnd", 16));
  signals->pending = pack_siginfos(queued.infos);
  signals->pending_bare = queued.bare;
  return signals;
}

void rebuild_signal_actions(const state::SignalsT& signals, CallList& list) {
  for (int signal = 1; signal <= kSignals; ++signal) {
    if (signal == SIGKILL || signal == SIGSTOP) continue;
    const state::SignalAction& action = signals.actions[static_cast<std::size_t>(signal - 1)];
    const KernelSigaction wanted{action.handler(), action.flags(), action.restorer(),
                                 action.mask()};
    list.call("set a signal action", SYS_rt_sigaction,
              {static_cast<std::uint64_t>(signal), list.put_value(wanted), 0, kMaskBytes});
  }
}

QueuedSignals queued_signals(pid_t tid, bool shared, sys::SignalMask mask) {
  QueuedSignals queued;
  queued.bare = mask & ~only(SIGSTOP);
  queued.infos = sys::pending_signals(tid, shared);
  std::erase_if(queued.infos, [](const siginfo_t& info) { return info.si_signo == SIGSTOP; });
  for (const siginfo_t& info : queued.infos) queued.bare &= ~only(info.si_signo);
  return queued;
}

bool was_stopped(const Capture& capture) {
  if (capture.process.stopped()) return true;
  if ((capture.statuses.front().number("ShdPnd", 16) & only(SIGSTOP)) != 0) return true;
  const auto threads = capture.process.threads();
  for (std::size_t i = 0; i < threads.size(); ++i) {
    const auto& suspended = threads[i].suspended_signal();
    if ((suspended && suspended->si_signo == SIGSTOP) ||
        (capture.statuses[i].number("SigPnd", 16) & only(SIGSTOP)) != 0)
      return true;
  }
  return false;
}

void rebuild_pending_signals(std::span<const std::uint8_t> siginfos, bool thread_directed,
                             pid_t pid, pid_t tid, CallList& list) {
  for (; siginfos.size() >= sizeof(siginfo_t); siginfos = siginfos.subspan(sizeof(siginfo_t))) {
    siginfo_t info;
    std::memcpy(&info, siginfos.data(), sizeof info);
    const std::uint64_t at = list.put_value(info);
    const auto signal = static_cast<std::uint64_t>(info.si_signo);
    const auto process = static_cast<std::uint64_t>(pid);
    // A thread may send itself any siginfo, also those that only the kernel makes.
    if (thread_directed)
      list.call("raise a pending signal", SYS_rt_tgsigqueueinfo,
                {process, static_cast<std::uint64_t>(tid), signal, at});
    else
      list.call("raise a pending signal", SYS_rt_sigqueueinfo, {process, signal, at});
  }
}

void rebuild_bare_signals(sys::SignalMask bare, bool thread_directed, pid_t pid, pid_t tid,
                          CallList& list) {
  for (int signal = 1; signal <= kSignals; ++signal) {
    if ((bare & only(signal)) == 0) continue;
    siginfo_t info{};
    info.si_signo = signal;
    // What the kernel drops the siginfo of when there is no room, instead of the whole signal.
    info.si_code = signal < kFirstRealTime ? SI_QUEUE : SI_USER;
    rebuild_pending_signals(pack_siginfos({info}), thread_directed, pid, tid, list);
  }
}

std::vector<std::uint8_t> pack_siginfos(const std::vector<siginfo_t>& infos) {
  std::vector<std::uint8_t> bytes(infos.size() * sizeof(siginfo_t));
  if (!infos.empty()) std::memcpy(bytes.data(), infos.data(), bytes.size());
  return bytes;
}

sys::SignalMask signals_in(std::span<const std::uint8_t> siginfos) {
  sys::SignalMask mask = 0;
  for (; siginfos.size() >= sizeof(siginfo_t); siginfos = siginfos.subspan(sizeof(siginfo_t))) {
    siginfo_t info;
    std::memcpy(&info, siginfos.data(), sizeof info);
    if (info.si_signo >= 1 && info.si_signo <= kSignals) mask |= only(info.si_signo);
  }
  return mask;
}

}  // namespace icecore
