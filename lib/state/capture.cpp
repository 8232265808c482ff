// SPDX-License-Identifier: Apache-2.0
#include "state/capture.hpp"

#include <fmt/format.h>

#include <utility>

#include "icecore/error.hpp"
#include "memory/worker.hpp"

namespace icecore {
namespace {

std::vector<sys::Status> read_statuses(const FrozenProcess& process) {
  const auto threads = process.threads();
  auto read = for_each_together<std::optional<sys::Status>>(
      threads.size(), [&](std::size_t i) { return sys::Status::read(threads[i].tid()); });
  std::vector<sys::Status> statuses;
  for (auto& status : read) {
    if (!status) throw Error{Errc::target_gone, fmt::format("process {} has ended", process.pid())};
    statuses.push_back(std::move(*status));
  }
  return statuses;
}

}  // namespace

Capture::Capture(FrozenProcess& frozen)
    : process(frozen),
      pid(frozen.pid()),
      pidfd(sys::open_process(pid)),
      memory(pid),
      statuses(read_statuses(frozen)) {}

}  // namespace icecore
