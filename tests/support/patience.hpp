// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>

namespace test {

/// How long anything may take that a test waits for.  Only a failure ever takes that long.
constexpr std::chrono::milliseconds kPatience = std::chrono::seconds{60};

/// A point in time by which something must have happened.
class Deadline {
 public:
  explicit Deadline(std::chrono::milliseconds patience)
      : at_(std::chrono::steady_clock::now() + patience) {}

  bool passed() const { return left_ms() == 0; }

  /// As poll(2) wants it.
  int left_ms() const {
    const auto left = at_ - std::chrono::steady_clock::now();
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
    return static_cast<int>(std::max<std::int64_t>(ms, 0));
  }

 private:
  std::chrono::steady_clock::time_point at_;
};

}  // namespace test
