// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>

#include "sys/process.hpp"

namespace icecore {

/// Runs `work` on a thread of its own, with all signals blocked, and gives back its result or
/// throws what it threw.
///
/// ptrace attachments, and the namespaces that new children get, belong to a thread: this one ends
/// with the work, so nothing of it stays with the caller.  When it ends, the kernel lets go of what
/// it still traces.
///
/// `meanwhile`, which must not throw, runs on the caller's thread.
template <class Work, class Meanwhile>
auto on_tracer_thread(Work work, Meanwhile meanwhile) -> decltype(work()) {
  using Result = decltype(work());
  std::exception_ptr failure;
  std::conditional_t<std::is_void_v<Result>, int, std::optional<Result>> result{};
  {
    const sys::SignalsBlocked blocked;  // threads begin with their maker's mask
    std::thread thread{[&] {
      try {
        if constexpr (std::is_void_v<Result>)
          work();
        else
          result.emplace(work());
      } catch (...) {
        failure = std::current_exception();
      }
    }};
    meanwhile();
    thread.join();
  }
  if (failure) std::rethrow_exception(failure);
  if constexpr (!std::is_void_v<Result>) return std::move(*result);
}

template <class Work>
auto on_tracer_thread(Work work) -> decltype(work()) {
  return on_tracer_thread(std::move(work), [] {});
}

}  // namespace icecore
