// SPDX-License-Identifier: Apache-2.0
#include "progress_line.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace icecore::tool {
namespace {

constexpr std::chrono::seconds kBeforeFirst{1};
constexpr std::chrono::milliseconds kBetween{100};

}  // namespace

ProgressLine::ProgressLine() : next_(Clock::now() + kBeforeFirst) {}

ProgressCallback ProgressLine::callback() {
  if (::isatty(STDERR_FILENO) == 0) return {};
  return [this](const Progress& progress) { show(progress); };
}

void ProgressLine::show(const Progress& progress) {
  const bool complete = progress.total_bytes != 0 && progress.done_bytes >= progress.total_bytes;
  if (complete) return erase();  // in time before a restored process writes to the terminal
  if (Clock::now() < next_) return;
  next_ = Clock::now() + kBetween;
  shown_ = true;

  constexpr std::uint64_t kMebi = 1U << 20;
  if (progress.total_bytes == 0)
    fmt::print(stderr, "\r{}: {} MiB\x1b[K", progress.stage, progress.done_bytes / kMebi);
  else
    fmt::print(stderr, "\r{}: {} of {} MiB ({:.0f} %)\x1b[K", progress.stage,
               progress.done_bytes / kMebi, progress.total_bytes / kMebi,
               100.0 * static_cast<double>(progress.done_bytes) /
                   static_cast<double>(progress.total_bytes));
  std::fflush(stderr);
}

void ProgressLine::erase() {
  if (!shown_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  shown_ = false;
}

}  // namespace icecore::tool
