// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/progress.hpp>

#include <chrono>

namespace icecore::tool {

/// One line on a terminal that says how far long work has come.
class ProgressLine {
 public:
  ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ~ProgressLine() { erase(); }

  /// To be called by the library.  Empty when standard error is no terminal.  Must not outlive
  /// this.
  ProgressCallback callback();

 private:
  using Clock = std::chrono::steady_clock;

  void show(const Progress& progress);
  void erase();

  Clock::time_point next_;  // not before this
  bool shown_ = false;
};

}  // namespace icecore::tool
