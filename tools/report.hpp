// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/restore.hpp>
#include <icecore/snapshot.hpp>

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

/// What `snapshot` and `run` say of an image that was made.
inline JsonObject& add_report(JsonObject& object, const SnapshotReport& report) {
  return object.add("threads", report.threads)
      .add("mappings", report.mappings)
      .add("descriptors", report.descriptors)
      .add("stored_pages", report.stored_pages)
      .add("zero_pages", report.zero_pages)
      .add("image_bytes", report.image_bytes)
      .add("total_us", report.total)
      .add("frozen_us", report.frozen)
      .add("freeze_us", report.freeze)
      .add("state_us", report.state)
      .add("pages_us", report.pages)
      .add("commit_us", report.commit)
      .add("copied_on_write", report.copied_on_write)
      .add("gpu_lock_us", report.gpu_lock)
      .add("gpu_save_us", report.gpu_save)
      .add("gpu_resume_us", report.gpu_resume)
      .add("gpu_bytes", report.gpu_bytes)
      .add("gpu_buffer_bytes", report.gpu_buffer_bytes);
}

}  // namespace icecore::tool
