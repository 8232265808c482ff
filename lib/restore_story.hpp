// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>

#include "icecore/restore.hpp"
#include "image/image_data.hpp"
#include "pager/pager_process.hpp"
#include "state/rebuild.hpp"

namespace icecore {

struct Restored {
  ProcessRebuild::Running running;
  RestoreReport report;
  std::optional<pager::PagerProcess> pager;
};

struct RestoredProcess::State : Restored {};

/// Called when everything is done but to let the process run, with its pidfd.  The process runs
/// when this returns; when it throws, nothing is left of it.
using Gate = std::function<void(pid_t pid, const sys::Fd& pidfd, const RestoreReport& report)>;

/// The whole story, on a thread of its own.
Restored restore_through(const Image::Data& image, const RestoreOptions& options, const Gate& gate);

}  // namespace icecore
