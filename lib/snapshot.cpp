// SPDX-License-Identifier: Apache-2.0
//
// The story of a snapshot:
//
//   preflight → (GPUs rest) → freeze → (GPU memory into memory) → read state → select pages
//   → read and encode → (and back) → thaw (or kill) → commit
#include "icecore/snapshot.hpp"

#include <fmt/format.h>

#include "compat/baseline.hpp"
#include "compat/platform.hpp"
#include "fault_injection.hpp"
#include "gpu/session.hpp"
#include "guest_area.hpp"
#include "icecore/error.hpp"
#include "image/image_writer.hpp"
#include "image/state_generated.h"
#include "memory/page_encoder.hpp"
#include "memory/page_reader.hpp"
#include "memory/page_selection.hpp"
#include "pager/loan.hpp"
#include "preflight.hpp"
#include "state/address_space.hpp"
#include "state/attributes.hpp"
#include "state/process.hpp"
#include "stopwatch.hpp"
#include "sys/socket.hpp"
#include "tracee/frozen_process.hpp"
#include "tracee/tracer_thread.hpp"

namespace icecore {
namespace {

void throw_refusals(Capture& capture) {
  capture.refusals.throw_if_any(Errc::unsupported,
                                fmt::format("process {} cannot be snapshotted:", capture.pid));
}

/// Of a process that was found to use none: it has opened them since.
void refuse_devices(pid_t pid, const state::ProcessT& process) {
  for (const auto& file : process.files)
    if (gpu::is_device_path(file->path))
      throw Error{Errc::unsupported,
                  fmt::format("process {} cannot be snapshotted:", pid),
                  {file->path + ": a device of a GPU, opened while the process was looked at"}};
}

/// The one failure after which the target does not run on.
[[noreturn]] void throw_lost(pid_t pid, const std::filesystem::path& path,
                             const std::string& reason) {
  throw Error{
      Errc::io,
      fmt::format("process {} is lost, and left stopped: {}; the image {} is complete: kill "
                  "the process and restore it from there",
                  pid, reason, path.string())};
}

/// `without_gpu`: so it was found to be before the freeze.
SnapshotReport tell(pid_t pid, const std::filesystem::path& path, const SnapshotOptions& options,
                    bool& without_gpu) {
  Stopwatch watch;
  SnapshotReport report;
  check_baseline(options.cpu_baseline);
  preflight(pid);
  GuestPause pause{pid, options.hook_patience, options.stop};
  std::optional<SleepObserver> sleeps{pid};  // a freeze wakes every thread: look before
  ImageWriter image{path};  // cannot be written?  Then the target is not even touched
  PageEncoder encoder{image, options.encoding, options.zstd_level};
  fault_point("snapshot: before the freeze");
  watch.lap();

  // Whoever uses CUDA is kept from it while it still runs: the driver needs it alive for that.
  const auto gpu = gpu::Session::begin(pid, options);
  if (gpu) sleeps.emplace(pid);  // it has slept on meanwhile
  without_gpu = gpu == nullptr;
  report.gpu_lock = watch.lap();
  fault_point("snapshot: GPUs at rest");

  FrozenProcess process = FrozenProcess::freeze(pid, options.stop);
  leave_vdso(process, options.stop);
  sleeps->process_is_frozen(process);
  report.freeze = watch.lap();
  fault_point("snapshot: frozen");

  // What was in GPUs is ordinary memory from here to put_back(), and no device is open.
  std::optional<gpu::SavedMemory> saved;
  if (gpu) saved.emplace(*gpu, process);
  report.gpu_save = watch.lap();
  fault_point("snapshot: GPU memory saved");

  // From here to the thaw the process stands still: read only what must be consistent.
  Capture capture{process};
  capture.outside = options.outside;
  capture.close_connections = options.tcp == TcpConnections::close;
  refuse_other_worlds(pid, capture.refusals);  // again: it has run since
  refuse_to_enter(capture);
  throw_refusals(capture);
  auto loan = pager::Loan::take(pid, capture.pidfd);  // if it was restored a moment ago
  capture.is_being_loaded = loan.has_value();
  refuse_from_outside(pid, capture.refusals);
  CapturedProcess captured = capture_process(capture, *sleeps);
  const PageSelection pages =
      select_pages(pid, captured.pages, loan ? loan->missing() : MissingPages{});
  record_guards(pages.guards, *captured.state->address_space);
  if (saved) {
    saved->record(*captured.state);
    record_gpu_buffers(pid, *captured.state);
  }
  throw_refusals(capture);

  // Every refusal is behind us: what follows only copies; from a fork, if there is one.
  auto copy = options.copy_on_write && !options.kill && !gpu
                  ? try_copy_process(capture, captured, pages)
                  : std::nullopt;
  report.copied_on_write = copy.has_value();
  const auto let_run = [&] {
    sleeps->shorten_timeouts(process);
    process.thaw();
    if (!gpu) pause.end();
  };
  if (copy) let_run();
  report.state = watch.lap();
  fault_point("snapshot: state read");

  const sys::RemoteMemory memory{copy ? copy->pid() : pid};
  read_pages(memory, loan ? &loan->image() : nullptr, pages, encoder, options.progress,
             options.stop);
  loan.reset();
  for (const FileTable::Kept& kept : capture.files.kept())
    read_file_pages(kept.file, kept.address, kept.size, encoder, options.stop);
  copy.reset();
  report.pages = watch.lap();
  fault_point("snapshot: pages read");

  // A target that is to be killed never runs again; any other runs before the slow end.
  std::string lost;
  if (!options.kill && !report.copied_on_write) {
    if (saved) lost = saved->put_back();
    report.gpu_resume = watch.lap();
    let_run();
    if (gpu && lost.empty()) lost = gpu->end();
    if (gpu) pause.end();
  }
  report.frozen = report.freeze + report.gpu_save + report.state + report.gpu_resume;
  if (!report.copied_on_write) report.frozen += report.pages;

  // Nothing below looks at the process again.
  const PageMap map = encoder.finish();
  capture.files.complete();
  state::ManifestT manifest;
  manifest.platform = capture_platform(std::move(captured.vdso), options.cpu_baseline);
  manifest.process = std::move(captured.state);
  manifest.process->files = capture.files.take();
  if (!gpu) refuse_devices(pid, *manifest.process);
  image.finish(manifest, map);
  fault_point("snapshot: written");
  if (options.stop.stop_requested()) throw Error{Errc::cancelled, "snapshot: cancelled"};
  image.commit(options.fsync);
  fault_point("snapshot: committed");
  if (options.kill) {
    // Nothing of them may be in the way of those that a restore makes (TIME_WAIT).
    for (const sys::Fd& connection : capture.own_connections) sys::end_without_trace(connection);
    capture.own_connections.clear();
    if (gpu) saved->forget(), gpu->forget();
    process.kill();
  }
  if (!lost.empty()) throw_lost(pid, path, lost);

  report.commit = watch.lap();
  report.total = watch.elapsed();
  report.threads = manifest.process->threads.size();
  report.mappings = manifest.process->address_space->mappings.size();
  report.descriptors = manifest.process->descriptors->descriptors.size();
  report.stored_pages = map.stored_pages;
  report.zero_pages = encoder.zero_pages();
  report.image_bytes = image.size_bytes();
  report.gpu_bytes = saved ? saved->bytes() : 0;
  if (manifest.process->gpu)
    for (const auto& buffer : manifest.process->gpu->buffers)
      report.gpu_buffer_bytes += buffer->size;
  return report;
}

}  // namespace

SnapshotReport snapshot(pid_t pid, const std::filesystem::path& image,
                        const SnapshotOptions& options) {
  return on_tracer_thread([&] {
    bool without_gpu = false;
    try {
      return tell(pid, image, options, without_gpu);
    } catch (const Error& error) {
      // Its first call of CUDA came between our look at it and the freeze: look again.
      if (error.code() != Errc::unsupported || !without_gpu || !gpu::has_begun_to_use_gpus(pid))
        throw;
    }
    return tell(pid, image, options, without_gpu);
  });
}

}  // namespace icecore
