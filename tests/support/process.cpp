// SPDX-License-Identifier: Apache-2.0
#include "support/process.hpp"

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>

extern char** environ;

namespace test {
namespace {

/// The attributes of a process that inherits nothing from the test about signals.
struct SpawnAttributes {
  posix_spawnattr_t value;

  SpawnAttributes() {
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    ::posix_spawnattr_init(&value);
    ::posix_spawnattr_setsigdefault(&value, &all);
    ::posix_spawnattr_setsigmask(&value, &none);
    ::posix_spawnattr_setflags(&value, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  }
  ~SpawnAttributes() { ::posix_spawnattr_destroy(&value); }
  SpawnAttributes(const SpawnAttributes&) = delete;
  SpawnAttributes& operator=(const SpawnAttributes&) = delete;
};

struct SpawnStreams {
  posix_spawn_file_actions_t value;

  explicit SpawnStreams(Streams streams) {
    ::posix_spawn_file_actions_init(&value);
    ::posix_spawn_file_actions_adddup2(&value, streams.in, 0);
    ::posix_spawn_file_actions_adddup2(&value, streams.out, 1);
    ::posix_spawn_file_actions_adddup2(&value, streams.error, 2);
    ::posix_spawn_file_actions_addclosefrom_np(&value, 3);  // whoever started the test may leak
  }
  ~SpawnStreams() { ::posix_spawn_file_actions_destroy(&value); }
  SpawnStreams(const SpawnStreams&) = delete;
  SpawnStreams& operator=(const SpawnStreams&) = delete;
};

}  // namespace

Process Process::start(const Arguments& arguments, Streams streams) {
  std::vector<char*> words;
  for (const std::string& argument : arguments)
    words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);

  const SpawnAttributes attributes;
  const SpawnStreams actions{streams};
  pid_t pid = 0;
  if (const int error =
          ::posix_spawnp(&pid, words[0], &actions.value, &attributes.value, words.data(), environ))
    throw std::system_error{error, std::generic_category(), "start " + arguments[0]};
  return Process{pid};
}

Process::Process(pid_t pid)
    : pid_(pid), pidfd_(static_cast<int>(must(::syscall(SYS_pidfd_open, pid, 0), "pidfd_open"))) {}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)), pidfd_(std::move(other.pidfd_)), status_(other.status_) {}

Process::~Process() {
  if (pid_ == 0 || status_) return;
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) == -1 && errno == EINTR) {
  }
}

bool Process::ended(std::chrono::milliseconds patience) const {
  ::pollfd wait = {pidfd_.get(), POLLIN, 0};
  const Deadline deadline{patience};
  int count;
  while ((count = ::poll(&wait, 1, deadline.left_ms())) == -1 && errno == EINTR) {
  }
  return count == 1;
}

void Process::signal(int number) const { must(::kill(pid_, number), "kill"); }

int Process::wait(std::chrono::milliseconds patience) {
  if (status_) return *status_;
  if (!ended(patience))
    throw std::runtime_error{"process " + std::to_string(pid_) + " does not end"};
  int status = 0;
  must(::waitpid(pid_, &status, 0), "waitpid");
  status_ = status;
  return status;
}

void Process::await_end() {
  if (!ended(kPatience))
    throw std::runtime_error{"process " + std::to_string(pid_) + " does not end"};
  int status = 0;
  if (::waitpid(pid_, &status, 0) == -1 && errno != ECHILD) must(-1, "waitpid");
  status_ = status;
}

int exit_status(int wait_status) {
  return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

std::vector<pid_t> children_of(pid_t pid) {
  std::vector<pid_t> children;
  std::error_code gone;
  const std::filesystem::path tasks = "/proc/" + std::to_string(pid) + "/task";
  for (const auto& task : std::filesystem::directory_iterator{tasks, gone}) {
    std::ifstream list{task.path() / "children"};
    for (pid_t child; list >> child;) children.push_back(child);
  }
  return children;
}

}  // namespace test
