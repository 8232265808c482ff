// SPDX-License-Identifier: Apache-2.0
#pragma once

// How `run` learns that a program has done what all its invocations have in common.

#include <poll.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace icecore::tool {

/// A way to see it, from the start of the program on.
class Ready {
 public:
  virtual ~Ready() = default;

  /// Variables that the program has to be started with, as "NAME=VALUE".
  virtual std::vector<std::string> environment() const { return {}; }

  /// What the program gets as standard output and error, or -1: ours.
  virtual int output(int /*number*/) const { return -1; }

  /// The program runs.
  virtual void started(pid_t /*pid*/) {}

  /// Look again when poll(2) finds one of these,
  virtual std::vector<::pollfd> waits() const { return {}; }
  /// or when this has passed; negative: not because of time.
  virtual std::chrono::milliseconds look_after() const { return std::chrono::milliseconds{-1}; }

  /// Looks.  Goes on being called when it has said true, since output has to be passed on.
  virtual bool look() = 0;

  /// Whether there is output left to pass on, of a program that has ended.
  virtual bool has_rest() const { return false; }
};

/// "notify", "guest", "port:N", "file:PATH", "log:REGEX" or "delay:SECONDS".  Nothing when it is
/// none of these.
std::unique_ptr<Ready> make_ready(std::string_view how);

/// What the manual page says of make_ready().
std::string check_ready(const std::string& how);

/// Tells whoever waits for us (sd_notify(3)) what the program told us, or would have.
void notify_our_own_supervisor(std::string_view message);

}  // namespace icecore::tool
