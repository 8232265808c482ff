// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <string>
#include <utility>

#include "icecore/error.hpp"

namespace icecore::sys {

/// Throws icecore::Error for `err`, with `subject` and the kernel's own words.
[[noreturn]] void throw_errno(int err, const std::string& subject);

/// Returns call(), repeated while a signal interrupts it.  Throws when it returns -1; the subject
/// ("seize thread 812") is formatted only then.
///
/// Not for close(): on Linux the descriptor is gone even when close() reports EINTR.
template <class Call, class... Args>
auto checked(Call call, fmt::format_string<Args...> subject, Args&&... args) {
  for (;;) {
    if (const auto result = call(); result != -1) return result;
    if (errno != EINTR) throw_errno(errno, fmt::format(subject, std::forward<Args>(args)...));
  }
}

}  // namespace icecore::sys
