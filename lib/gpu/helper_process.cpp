// SPDX-License-Identifier: Apache-2.0
#include "gpu/helper_process.hpp"

#include <fmt/format.h>
#include <signal.h>

#include <array>
#include <utility>

#include "icecore/error.hpp"
#include "sys/files.hpp"
#include "sys/own_program.hpp"
#include "sys/process.hpp"
#include "sys/spawn.hpp"

namespace icecore::gpu {

using Clock = std::chrono::steady_clock;

HelperProcess::HelperProcess() { start(); }

void HelperProcess::start() {
  const std::string program = sys::find_own_program("icecore-gpu", "ICECORE_GPU");
  if (program.empty())
    throw Error{Errc::io, fmt::format("find the program icecore-gpu near {}: it is not installed",
                                      sys::own_file().parent_path().string())};
  auto [ours, theirs] = sys::make_socket_pair();
  socket_ = std::move(ours);
  pid_ = sys::spawn_program(program, "icecore-gpu", std::array{theirs.get()});
}

HelperProcess::~HelperProcess() {
  if (pid_ == 0) return;
  try {
    sys::shut_down(socket_);  // at which it ends
    // What it undoes may take its time; if it hangs, nobody else can do better.
    if (!sys::wait_hang_up(socket_, std::chrono::seconds{30})) sys::send_signal(pid_, SIGKILL);
    sys::wait_child(std::exchange(pid_, 0));
  } catch (const Error&) {
    // Somebody else has reaped it.
  }
}

void HelperProcess::kill() noexcept {
  try {
    sys::send_signal(pid_, SIGKILL);
    sys::wait_child(std::exchange(pid_, 0));
  } catch (const Error&) {
    // Somebody else has reaped it.
  }
  pid_ = 0;
}

std::optional<Answer> HelperProcess::give_up(Silence why) noexcept {
  why_ = why;
  kill();
  return {};
}

std::optional<Answer> HelperProcess::call(const Request& request, const Wait& wait) {
  if (pid_ == 0) start();  // the last one was given up
  const auto deadline = Clock::now() + wait.patience;
  sys::send_text(socket_, to_bytes(request));
  while (!sys::wait_readable(socket_, std::chrono::milliseconds{1})) {
    try {
      if (wait.meanwhile) wait.meanwhile();
    } catch (...) {
      kill();  // nobody waits for its answer any more
      throw;
    }
    if (wait.stop.stop_requested()) return give_up(Silence::cancelled);
    if (Clock::now() > deadline) return give_up(Silence::too_late);
  }
  try {
    if (const auto bytes = sys::receive_text(socket_))
      if (auto answer = from_bytes<Answer>(*bytes)) return answer;
  } catch (const Error&) {
    // It was killed before it had read what we sent.
  }
  return give_up(Silence::died);
}

}  // namespace icecore::gpu
