// SPDX-License-Identifier: Apache-2.0
#include "support/stepper.hpp"

#include <linux/close_range.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <utility>

namespace test {
namespace {

constexpr long kOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
constexpr int kSystemCallStop = SIGTRAP | 0x80;

sigset_t only(int number) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  return set;
}

/// In the child, after fork: only what is safe there.  A process group of its own, so that one
/// waitpid covers its threads and nothing else.
[[noreturn]] void become(const std::vector<char*>& words, Streams streams, const sigset_t& mask) {
  ::setpgid(0, 0);
  ::dup2(streams.in, 0);
  ::dup2(streams.out, 1);
  ::dup2(streams.error, 2);
  ::close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
  ::signal(SIGPIPE, SIG_DFL);
  ::sigprocmask(SIG_SETMASK, &mask, nullptr);
  ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
  ::execv(words[0], words.data());
  ::_exit(127);
}

}  // namespace

struct Stepper::Event {
  pid_t thread;
  int status;
};

Stepper::Stepper(const Arguments& arguments, Streams streams, std::set<long> counted)
    : counted_(std::move(counted)) {
  std::vector<char*> words;
  for (const std::string& argument : arguments)
    words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);

  const sigset_t child_signal = only(SIGCHLD);
  must(::sigprocmask(SIG_BLOCK, &child_signal, &mask_before_), "sigprocmask");
  pid_ = must(::fork(), "fork");
  if (pid_ == 0) become(words, streams, mask_before_);
  ::setpgid(pid_, pid_);
  next_event();  // the stop after execve
  must(::ptrace(PTRACE_SETOPTIONS, pid_, nullptr, kOptions), "PTRACE_SETOPTIONS");
  go_on(pid_, 0);
}

Stepper::~Stepper() {
  kill();
  ::sigprocmask(SIG_SETMASK, &mask_before_, nullptr);
}

/// Waits for the next stop or end of any of its threads; nothing when there are none.
std::optional<Stepper::Event> Stepper::next_event() {
  const Deadline deadline{kPatience};
  const sigset_t child_signal = only(SIGCHLD);
  for (;;) {
    int status = 0;
    const pid_t thread = ::waitpid(-pid_, &status, __WALL | WNOHANG);
    if (thread == -1 && errno == ECHILD) return std::nullopt;
    if (must(thread, "waitpid") != 0) return Event{thread, status};
    if (deadline.passed()) throw std::runtime_error{"the program makes no more system calls"};
    const timespec left = {deadline.left_ms() / 1000 + 1, 0};
    ::sigtimedwait(&child_signal, nullptr, &left);
  }
}

void Stepper::go_on(pid_t thread, int signal) {
  ::ptrace(PTRACE_SYSCALL, thread, nullptr, static_cast<long>(signal));  // it may be dead by now
}

/// Handles one event.  True when that was a new system call.
bool Stepper::advance() {
  const auto event = next_event();
  if (!event) throw std::runtime_error{"the program is gone, and its end was not seen"};
  const auto [thread, status] = *event;
  if (!WIFSTOPPED(status)) {
    inside_call_.erase(thread);
    if (thread == pid_) {
      ended_ = true;
      status_ = status;
    }
    return false;
  }
  const int stop = WSTOPSIG(status);
  if (stop == kSystemCallStop) {
    const bool began = inside_call_.insert(thread).second;
    if (!began) inside_call_.erase(thread);
    const bool entered = began && note_call(thread);
    if (entered && steps_ == stop_before_)
      held_ = thread;
    else
      go_on(thread, 0);
    return entered;
  }
  // A new thread begins with SIGSTOP, an event is SIGTRAP: neither is meant for the program.
  const bool ours = status >> 16 != 0 || stop == SIGSTOP || stop == SIGTRAP;
  go_on(thread, ours ? 0 : stop);
  return false;
}

/// False for one that only waits: how often it is made is a matter of time.
bool Stepper::note_call(pid_t thread) {
  __ptrace_syscall_info info{};
  ::ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info);
  const auto number = static_cast<long>(info.entry.nr);
  if (number == SYS_sched_yield || number == SYS_clock_nanosleep) return false;
  if (!counted_.empty() && !counted_.contains(number)) return false;
  ++steps_;
  std::ostringstream call;
  call << info.entry.nr << std::hex << "(" << info.entry.args[0] << ", " << info.entry.args[1]
       << ", " << info.entry.args[2] << ")";
  last_calls_.push_back(call.str());
  if (last_calls_.size() > 8) last_calls_.pop_front();
  return true;
}

std::string Stepper::last_calls() const {
  std::string text;
  for (const std::string& call : last_calls_) text += " " + call;
  return text;
}

bool Stepper::step(std::size_t count) {
  for (std::size_t done = 0; done < count && !ended_;)
    if (advance()) ++done;
  return !ended_;
}

bool Stepper::stop_before(std::size_t step) {
  stop_before_ = step;
  while (!ended_ && held_ == 0) advance();
  return held_ != 0;
}

int Stepper::finish() {
  if (held_ != 0) go_on(std::exchange(held_, 0), 0);
  while (!ended_) advance();
  while (const auto event = next_event())
    if (WIFSTOPPED(event->status)) go_on(event->thread, 0);
  return exit_status(status_);
}

std::size_t steps_until(const std::string& stage, const Arguments& command, Streams streams,
                        const std::set<long>& counted) {
  constexpr const char* kStage = "ICECORE_DIE_AT";
  ::setenv(kStage, stage.c_str(), 1);
  Stepper stepper{command, streams, counted};
  ::unsetenv(kStage);
  if (stepper.finish() != 128 + SIGKILL) throw std::runtime_error{"never at the stage " + stage};
  return stepper.steps();
}

void Stepper::kill() {
  if (ended_) return;
  ::kill(pid_, SIGKILL);
  finish();
}

}  // namespace test
