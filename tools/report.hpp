// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/restore.hpp>

#include "json/json.hpp"

namespace icecore::tool {

/// What `restore` and `run` say of a process that runs.
inline JsonObject& add_report(JsonObject& object, const RestoredProcess& process) {
  const RestoreReport& report = process.report();
  return object.add("pid", process.pid())
      .add("in_namespace", report.in_namespace)
      .add("lazy", report.lazy)
      .add("recording", report.recording)
      .add("filled_bytes", report.filled_bytes)
      .add("prefetched_bytes", report.prefetched_bytes)
      .add("missing_bytes", report.missing_bytes)
      .add("total_us", report.total)
      .add("check_us", report.check)
      .add("build_us", report.build)
      .add("fill_us", report.fill)
      .add("thaw_us", report.thaw)
      .add("gpu_us", report.gpu)
      .add("gpu_bytes", report.gpu_bytes);
}

}  // namespace icecore::tool
