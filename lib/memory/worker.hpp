// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <system_error>
#include <thread>
#include <utility>

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

}  // namespace icecore
