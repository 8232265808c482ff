// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "icecore/error.hpp"
#include "sys/cpu.hpp"
#include "sys/process.hpp"

namespace icecore {

/// Runs `work` on a thread of its own, which no signal of the program that embeds us ever
/// interrupts.
template <class Work>
std::jthread start_worker(Work work) {
  const sys::SignalsBlocked blocked;  // a new thread inherits the mask
  try {
    return std::jthread{std::move(work)};
  } catch (const std::system_error& e) {
    throw Error{Errc::io, fmt::format("start a thread: {}", e.code().message()), e.code().value()};
  }
}

/// Runs `work` here and, when that is `worth` it and there is a second CPU, at the same time on a
/// thread of its own.  `work` throws nothing.
template <class Work>
void work_together(bool worth, const Work& work) {
  std::jthread second;
  if (worth && sys::usable_cpus() > 1) second = start_worker([&] { work(); });
  work();
}

/// work(0) to work(count - 1), by two threads where there is enough of it: their results.
template <class Result, class Work>
std::vector<Result> for_each_together(std::size_t count, const Work& work) {
  constexpr std::size_t kEnough = 32;  // to be worth a thread, at some 10 us each
  std::vector<Result> results(count);
  std::atomic<std::size_t> next = 0;
  std::mutex mutex;
  std::exception_ptr failure;
  work_together(count >= kEnough, [&]() noexcept {
    try {
      for (std::size_t i; (i = next++) < count;) results[i] = work(i);
    } catch (...) {
      const std::lock_guard lock{mutex};
      failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
  return results;
}

}  // namespace icecore
