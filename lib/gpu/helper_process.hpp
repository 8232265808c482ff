// SPDX-License-Identifier: Apache-2.0
#pragma once

// The library's side of icecore-gpu, the process that makes the driver's calls.

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <optional>
#include <stop_token>

#include "gpu/protocol.hpp"
#include "sys/fd.hpp"

namespace icecore::gpu {

/// What a call waits for, besides its answer.
struct Wait {
  std::chrono::milliseconds patience;
  std::function<void()> meanwhile = {};  ///< is called about every millisecond
  std::stop_token stop = {};
};

class HelperProcess {
 public:
  /// Throws Errc::io when the program is not installed.
  HelperProcess();
  HelperProcess(const HelperProcess&) = delete;
  HelperProcess& operator=(const HelperProcess&) = delete;

  /// It undoes what it was not told to leave, if it still answers.
  ~HelperProcess();

  enum class Silence { too_late, died, cancelled };

  /// Nothing when no answer came: why() says why, and the helper is dead then.  The driver may
  /// still do what it was asked for: ask for the state of the process.
  std::optional<Answer> call(const Request& request, const Wait& wait);
  Silence why() const noexcept { return why_; }

  bool alive() const noexcept { return pid_ != 0; }
  pid_t pid() const noexcept { return pid_; }  ///< 0: it is not alive

 private:
  void start();
  void kill() noexcept;
  std::optional<Answer> give_up(Silence why) noexcept;

  pid_t pid_ = 0;
  sys::Fd socket_;
  Silence why_ = Silence::died;
};

}  // namespace icecore::gpu
