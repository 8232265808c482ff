// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "icecore/error.hpp"

namespace icecore {

/// Collects every reason why something cannot be done, so that the user learns all of them at once.
class Refusals {
 public:
  template <class... Args>
  void add(fmt::format_string<Args...> reason, Args&&... args) {
    reasons_.push_back(fmt::format(reason, std::forward<Args>(args)...));
  }

  bool empty() const noexcept { return reasons_.empty(); }

  /// Throws when there are reasons.
  void throw_if_any(Errc code, const std::string& headline) {
    if (!reasons_.empty()) throw Error{code, headline, std::exchange(reasons_, {})};
  }

 private:
  std::vector<std::string> reasons_;
};

}  // namespace icecore
