// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <utility>

namespace icecore {

/// Time since it was made, or since the last lap.
class Stopwatch {
 public:
  using Clock = std::chrono::steady_clock;

  std::chrono::nanoseconds elapsed() const { return Clock::now() - start_; }

  /// Time since the last lap.
  std::chrono::nanoseconds lap() {
    const auto now = Clock::now();
    return now - std::exchange(lap_, now);
  }

 private:
  Clock::time_point start_ = Clock::now();
  Clock::time_point lap_ = start_;
};

}  // namespace icecore
