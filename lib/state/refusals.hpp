// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
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

  /// For what another process has at the moment.
  template <class... Args>
  void add_transient(fmt::format_string<Args...> reason, Args&&... args) {
    transient_.push_back(reasons_.size());
    add(reason, std::forward<Args>(args)...);
  }

  const std::vector<std::string>& reasons() const noexcept { return reasons_; }
  bool is_transient(std::size_t index) const {
    return std::find(transient_.begin(), transient_.end(), index) != transient_.end();
  }

  bool empty() const noexcept { return reasons_.empty(); }

  /// Throws when there are reasons.
  void throw_if_any(Errc code, const std::string& headline) {
    if (!reasons_.empty()) throw Error{code, headline, std::exchange(reasons_, {})};
  }

 private:
  std::vector<std::string> reasons_;
  std::vector<std::size_t> transient_;  // indices
};

}  // namespace icecore
