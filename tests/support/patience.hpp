// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <stdexcept>
#include <thread>

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

/// For what tells nobody when it happens.
inline void await(const std::function<bool()>& condition, const char* otherwise) {
  const Deadline deadline{kPatience};
  while (!condition()) {
    if (deadline.passed()) throw std::runtime_error{otherwise};
    std::this_thread::yield();
  }
}

}  // namespace test
