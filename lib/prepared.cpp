// SPDX-License-Identifier: Apache-2.0
//
// A restore that waits before its last step: on the thread that has built the process, since that
// is the one that traces it.
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "icecore/error.hpp"
#include "icecore/restore.hpp"
#include "restore_story.hpp"
#include "sys/files.hpp"
#include "sys/process.hpp"

namespace icecore {

struct PreparedProcess::State {
  enum class Phase { building, ready, started, cancelled, done };

  Image image;
  RestoreOptions options;
  std::mutex mutex;
  std::condition_variable_any changed;
  Phase phase = Phase::building;
  pid_t pid = 0;
  sys::Fd pidfd;
  RestoreReport report;
  std::optional<Restored> restored;
  std::exception_ptr failure;
  std::thread thread;

  State(const Image& from, const RestoreOptions& with) : image(from), options(with) {}

  ~State() {
    if (!thread.joinable()) return;
    set(Phase::cancelled);
    thread.join();
  }

  void run() {
    try {
      restored.emplace(restore_through(
          image.data(), options, [this](pid_t id, const sys::Fd& fd, const RestoreReport& so_far) {
            wait_for_start(id, fd, so_far);
          }));
    } catch (...) {
      failure = std::current_exception();
    }
    set(Phase::done);
  }

  void wait_for_start(pid_t id, const sys::Fd& fd, const RestoreReport& so_far) {
    std::unique_lock lock{mutex};
    pid = id;
    pidfd = sys::duplicate(fd.get());
    report = so_far;
    phase = Phase::ready;
    changed.notify_all();
    changed.wait(lock, options.stop, [this] { return phase != Phase::ready; });
    if (phase != Phase::started) throw Error{Errc::cancelled, "restore: cancelled"};
  }

  void set(Phase next) {
    const std::lock_guard lock{mutex};
    phase = next;
    changed.notify_all();
  }

  void wait_while(Phase wanted) {
    std::unique_lock lock{mutex};
    changed.wait(lock, [&] { return phase != wanted; });
  }

  void rethrow_failure() {
    if (!failure) return;
    thread.join();
    std::rethrow_exception(failure);
  }
};

PreparedProcess prepare(const Image& image, const RestoreOptions& options) {
  auto state = std::make_unique<PreparedProcess::State>(image, options);
  {
    const sys::SignalsBlocked blocked;  // threads begin with their maker's mask
    state->thread = std::thread{[&state = *state] { state.run(); }};
  }
  state->wait_while(PreparedProcess::State::Phase::building);
  state->rethrow_failure();
  return PreparedProcess{std::move(state)};
}

PreparedProcess::PreparedProcess(std::unique_ptr<State> state) : state_(std::move(state)) {}
PreparedProcess::PreparedProcess(PreparedProcess&&) noexcept = default;
PreparedProcess& PreparedProcess::operator=(PreparedProcess&&) noexcept = default;
PreparedProcess::~PreparedProcess() = default;

pid_t PreparedProcess::pid() const noexcept { return state_->pid; }
int PreparedProcess::pidfd() const noexcept { return state_->pidfd.get(); }
const RestoreReport& PreparedProcess::report() const noexcept { return state_->report; }

RestoredProcess PreparedProcess::start() && {
  {
    const std::lock_guard lock{state_->mutex};
    if (state_->phase == State::Phase::ready) state_->phase = State::Phase::started;
    state_->changed.notify_all();
  }
  state_->wait_while(State::Phase::started);
  state_->rethrow_failure();
  state_->thread.join();
  return RestoredProcess{std::make_unique<RestoredProcess::State>(
      RestoredProcess::State{std::move(*state_->restored)})};
}

}  // namespace icecore
