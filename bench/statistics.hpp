// SPDX-License-Identifier: Apache-2.0
//
// What the benches share: series of measurements and their medians.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

namespace bench {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Runs `work` and says how long that took.
template <class Work>
double timed(const Work& work) {
  const auto begin = Clock::now();
  work();
  return seconds_since(begin);
}

struct Summary {
  double median = 0;
  double min = 0;
  double max = 0;
};

/// `values` must not be empty.
inline Summary summarize(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  const double median =
      values.size() % 2 != 0 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {median, values.front(), values.back()};
}

/// What `percent` of them do not exceed.  `values` must not be empty.
inline double percentile(std::vector<double> values, std::size_t percent) {
  std::sort(values.begin(), values.end());
  return values[(values.size() * percent + 99) / 100 - 1];
}

inline std::string human_time(double seconds) {
  if (seconds < 1e-3) return fmt::format("{:.0f} us", seconds * 1e6);
  if (seconds < 0.1) return fmt::format("{:.2f} ms", seconds * 1e3);
  if (seconds < 1) return fmt::format("{:.0f} ms", seconds * 1e3);
  return fmt::format("{:.2f} s", seconds);
}

inline std::string human_size(double bytes) {
  if (bytes < 1 << 20) return fmt::format("{:.0f} KiB", bytes / 1024);
  return fmt::format("{:.1f} MiB", bytes / (1 << 20));
}

}  // namespace bench
