// SPDX-License-Identifier: Apache-2.0
//
// What the target programs share: the conversation on their standard streams, and small tools.
//
// A target prints "ready" and then answers one line with one line: "ping" with "pong", "secret?"
// with a number that it drew at its start, "check?" with "ok" or "wrong: …", "exit N" by ending.
// Whatever a target looks at, it looks at from inside: nothing here knows of snapshots.
#pragma once

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace target {

constexpr std::size_t kPageSize = 4096;
constexpr std::chrono::seconds kPatience{20};

/// The answer to "check?" becomes "wrong: " and this.
struct Wrong : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void require(bool condition, const std::string& otherwise) {
  if (!condition) throw Wrong{otherwise};
}

/// Throws with errno's words; for what a target needs to get into its state.
inline long must(long result, const std::string& what) {
  if (result == -1) throw Wrong{what + ": " + std::strerror(errno)};
  return result;
}

/// A system call past libc, which might repeat or emulate it.  The result or -errno.
template <class... Arguments>
long raw(long number, Arguments... arguments) {
  const long result = ::syscall(number, arguments...);
  return result == -1 ? -errno : result;
}

inline std::uint64_t random_number() {
  std::uint64_t number = 0;
  must(::getrandom(&number, sizeof number, 0), "getrandom");
  return number;
}

/// Number `index` of a sequence that `seed` names; no two seeds give the same by accident.
inline std::uint64_t pattern(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t mixed = seed + index * 0x9e3779b97f4a7c15;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  return mixed ^ (mixed >> 31);
}

/// Waits, without sleeping, until `condition` holds; Wrong with `otherwise` when it never does.
inline void await(const std::function<bool()>& condition, const std::string& otherwise) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    require(std::chrono::steady_clock::now() < deadline, otherwise);
    std::this_thread::yield();
  }
}

/// A whole file of /proc, or of anywhere.
inline std::string read_file(const std::string& path) {
  const int file = static_cast<int>(must(::open(path.c_str(), O_RDONLY | O_CLOEXEC), path));
  std::string text;
  char bytes[4096];
  for (ssize_t count; (count = ::read(file, bytes, sizeof bytes)) > 0;)
    text.append(bytes, static_cast<std::size_t>(count));
  ::close(file);
  return text;
}

/// Threads that wait in a futex until they are given something to do.
class Crew {
 public:
  explicit Crew(std::size_t size) : errors_(size) {
    for (std::size_t index = 0; index < size; ++index)
      std::thread{[this, index] { run(index); }}.detach();
  }

  std::size_t size() const { return errors_.size(); }

  /// Runs `work` once on every thread and waits for all.  Throws what one of them threw.
  void each(const std::function<void(std::size_t)>& work) {
    std::unique_lock lock{mutex_};
    work_ = work;
    left_ = size();
    ++round_;
    begin_.notify_all();
    const bool done = end_.wait_for(lock, kPatience, [this] { return left_ == 0; });
    require(done, std::to_string(left_) + " threads did not answer");
    for (const std::string& error : errors_) require(error.empty(), error);
  }

 private:
  void run(std::size_t index) {
    for (std::uint64_t last_round = 0;;) {
      std::unique_lock lock{mutex_};
      begin_.wait(lock, [&] { return round_ != last_round; });
      last_round = round_;
      lock.unlock();
      errors_[index] = attempt(index);
      lock.lock();
      if (--left_ == 0) end_.notify_all();
    }
  }

  std::string attempt(std::size_t index) {
    try {
      work_(index);
      return {};
    } catch (const Wrong& wrong) {
      return "thread " + std::to_string(index) + ": " + wrong.what();
    }
  }

  std::mutex mutex_;
  std::condition_variable begin_, end_;
  std::function<void(std::size_t)> work_;
  std::vector<std::string> errors_;
  std::size_t left_ = 0;
  std::uint64_t round_ = 0;
};

inline std::size_t count_threads() {
  struct ::stat folder {};
  must(::stat("/proc/self/task", &folder), "/proc/self/task");
  return folder.st_nlink - 2;
}

/// By question.  What follows the question and a space is the argument.
using Answers = std::map<std::string, std::function<std::string(const std::string& argument)>>;

inline void say(std::string line) {
  line += '\n';
  for (std::size_t done = 0; done < line.size();) {
    const ssize_t count = ::write(1, line.data() + done, line.size() - done);
    if (count < 0) std::_Exit(99);
    done += static_cast<std::size_t>(count);
  }
}

/// How often the read of standard input failed with EINTR, though no signal interrupts it.
inline int interrupted_reads = 0;

/// Blocks in a plain read(0), which is where most snapshots find a target.  Ends the program at
/// the end of standard input.
inline std::string hear() {
  static std::string unread;
  std::size_t end;
  while ((end = unread.find('\n')) == std::string::npos) {
    char bytes[4096];
    const long count = raw(SYS_read, 0, bytes, sizeof bytes);
    if (count == -EINTR) ++interrupted_reads;
    if (count == 0 || (count < 0 && count != -EINTR)) std::_Exit(count == 0 ? 0 : 98);
    if (count > 0) unread.append(bytes, static_cast<std::size_t>(count));
  }
  std::string line = unread.substr(0, end);
  unread.erase(0, end + 1);
  return line;
}

inline std::string answer(const Answers& answers, const std::string& line) {
  const std::size_t space = line.find(' ');
  const std::string question = line.substr(0, space);
  const std::string argument = space == std::string::npos ? "" : line.substr(space + 1);
  if (question == "exit") std::_Exit(std::atoi(argument.c_str()));
  const auto found = answers.find(question);
  return found == answers.end() ? "what?" : found->second(argument);
}

/// Says "ready" and answers for ever.  `check` throws Wrong for "wrong: …".
inline int serve(const std::function<void()>& check, Answers answers = {}) {
  const std::uint64_t secret = random_number();
  answers.emplace("ping", [](auto&) { return "pong"; });
  answers.emplace("secret?", [=](auto&) { return std::to_string(secret); });
  answers.emplace("check?", [=](auto&) {
    require(interrupted_reads == 0, "EINTR from read(0) without a signal");
    const std::size_t threads = count_threads();
    check();
    // The end of a thread frees memory, for which libc may even map some.
    if (count_threads() > threads)
      await([&] { return count_threads() <= threads; }, "a thread never ended");
    return "ok";
  });
  say("ready");
  for (;;) {
    try {
      say(answer(answers, hear()));
    } catch (const Wrong& wrong) {
      say(std::string{"wrong: "} + wrong.what());
    }
  }
}

}  // namespace target
