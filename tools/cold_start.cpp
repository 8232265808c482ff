// SPDX-License-Identifier: Apache-2.0
#include "cold_start.hpp"

#include <fmt/format.h>
#include <icecore/error.hpp>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <string_view>
#include <thread>

#include "foreground.hpp"

namespace icecore::tool {
namespace {

using Clock = std::chrono::steady_clock;

std::string_view name_of(std::string_view variable) {
  return variable.substr(0, variable.find('='));
}

/// Ours, with some variables set.
std::vector<std::string> environment_with(const std::vector<std::string>& added) {
  std::vector<std::string> all;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const auto same_name = [&](const std::string& other) {
      return name_of(other) == name_of(*variable);
    };
    if (std::ranges::none_of(added, same_name)) all.emplace_back(*variable);
  }
  all.insert(all.end(), added.begin(), added.end());
  return all;
}

std::vector<char*> pointers(const std::vector<std::string>& words) {
  std::vector<char*> all;
  all.reserve(words.size() + 1);
  for (const std::string& word : words) all.push_back(const_cast<char*>(word.c_str()));
  all.push_back(nullptr);
  return all;
}

/// 0 and the pid, or an error number.
int spawn(const ColdStart& start, pid_t& pid) {
  ::posix_spawn_file_actions_t actions;
  ::posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawnattr_setsigmask(&attributes, &start.signal_mask);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  if (start.inherited >= 0)  // to its own number: it is no longer closed on exec then
    ::posix_spawn_file_actions_adddup2(&actions, start.inherited, start.inherited);
  std::vector<std::string> variables = start.environment;
  if (start.ready != nullptr) {
    for (const int number : {1, 2})
      if (const int output = start.ready->output(number); output >= 0)
        ::posix_spawn_file_actions_adddup2(&actions, output, number);
    const auto wanted = start.ready->environment();
    variables.insert(variables.end(), wanted.begin(), wanted.end());
  }
  const std::vector<std::string> environment = environment_with(variables);
  std::vector<std::string> command = start.command;
  int error = ::posix_spawnp(&pid, command[0].c_str(), &actions, &attributes,
                             pointers(command).data(), pointers(environment).data());
  if (error == ENOEXEC && !start.executable.empty()) {  // as a shell and execvp(3) do it
    command[0] = start.executable;
    command.insert(command.begin(), "/bin/sh");
    error = ::posix_spawn(&pid, "/bin/sh", &actions, &attributes, pointers(command).data(),
                          pointers(environment).data());
  }
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  return error;
}

/// A program that runs, from its start to its end.
class Life {
 public:
  Life(const ColdStart& start, pid_t pid)
      : start_(start),
        pid_(pid),
        pidfd_(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))),
        stand_in_(pid) {
    if (pidfd_ < 0)
      throw Error{Errc::io, fmt::format("open process {}: {}", pid, ::strerrordesc_np(errno)),
                  errno};
  }
  Life(const Life&) = delete;
  ~Life() {
    if (work_.joinable()) work_.join();
    ::close(pidfd_);
  }

  int live() {
    while (!wait()) {
      stand_in_.pass_signals(snapshotting_);
      look();
    }
    pass_rest_on();
    if (work_.joinable()) work_.join();
    int status = 0;
    while (::waitpid(pid_, &status, 0) == -1 && errno == EINTR) {
    }
    return shell_status(status);
  }

 private:
  /// True when it has ended.
  bool wait() const {
    std::vector<::pollfd> waits{{pidfd_, POLLIN, 0}, {stand_in_.fd(), POLLIN, 0}};
    if (start_.ready != nullptr)
      std::ranges::copy(start_.ready->waits(), std::back_inserter(waits));
    ::poll(waits.data(), waits.size(), patience_ms());
    return waits[0].revents != 0;
  }

  /// Of its output.  Signals are for us again: where nobody reads it they end us.
  void pass_rest_on() {
    look();
    if (start_.ready == nullptr || !start_.ready->has_rest()) return;
    const sigset_t signals = foreground_signals();
    ::pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
    while (start_.ready->has_rest()) {
      std::vector<::pollfd> waits = start_.ready->waits();
      ::poll(waits.data(), waits.size(), -1);
      look();
    }
  }

  int patience_ms() const {
    if (start_.ready == nullptr || decided_) return -1;
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(since_ + start_.deadline - Clock::now());
    auto patience = std::max(left, std::chrono::milliseconds{0});
    if (const auto again = start_.ready->look_after(); again.count() >= 0)
      patience = std::min(patience, again);
    return static_cast<int>(std::min<std::int64_t>(patience.count(), 1'000'000));
  }

  void look() {
    if (start_.ready == nullptr) return;
    const bool ready = start_.ready->look();  // in any case: it passes output on
    if (decided_) return;
    if (ready) {
      decided_ = true;
      snapshotting_ = true;
      work_ = std::thread{[this] {
        start_.when_ready(pid_);
        snapshotting_ = false;
        ::kill(::getpid(), SIGCHLD);  // it may have stopped meanwhile
      }};
    } else if (Clock::now() - since_ >= start_.deadline) {
      decided_ = true;
      start_.when_late();
    }
  }

  const ColdStart& start_;
  pid_t pid_;
  int pidfd_;
  StandIn stand_in_;
  Clock::time_point since_ = Clock::now();
  bool decided_ = false;
  std::atomic<bool> snapshotting_ = false;
  std::thread work_;
};

}  // namespace

int run_cold(const ColdStart& start) {
  pid_t pid = 0;
  if (const int error = spawn(start, pid); error != 0) {
    constexpr int kCannotStart = 126, kNotFound = 127;
    fmt::print(stderr, "icecore: start {}: {}\n", start.command[0], ::strerrordesc_np(error));
    return error == ENOENT ? kNotFound : kCannotStart;
  }
  if (start.ready != nullptr) start.ready->started(pid);
  if (start.when_started) start.when_started(pid);
  return Life{start, pid}.live();
}

}  // namespace icecore::tool
