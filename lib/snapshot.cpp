// SPDX-License-Identifier: Apache-2.0
//
// The story of a snapshot:
//
//   preflight → (GPUs rest) → freeze → (GPU memory into memory) → read state → select pages
//   → read and encode → (and back) → thaw (or kill) → commit
#include "icecore/snapshot.hpp"

#include <fmt/format.h>

#include <future>
#include <memory>

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
#include "state/partial_writes.hpp"
#include "state/process.hpp"
#include "stopwatch.hpp"
#include "sys/process.hpp"
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

/// Everything that a snapshot needs once it no longer looks at the process.
struct Taken {
  Taken(const std::filesystem::path& path, const SnapshotOptions& options)
      : image{path}, encoder{image, options.encoding, options.zstd_level} {}

  Stopwatch watch;
  SnapshotReport report;
  ImageWriter image;
  PageEncoder encoder;
  std::future<std::unique_ptr<state::PlatformT>> platform;
  CapturedProcess captured;
  FileTable files;
  std::string lost;  ///< why the process cannot run on; empty: it does
};

/// Should the process run on because something fails: its calls end when they would have.
class SleepOnAfterFailure {
 public:
  SleepOnAfterFailure(const SleepObserver& sleeps, FrozenProcess& process)
      : sleeps_(sleeps), process_(process) {}
  SleepOnAfterFailure(const SleepOnAfterFailure&) = delete;
  SleepOnAfterFailure& operator=(const SleepOnAfterFailure&) = delete;
  ~SleepOnAfterFailure() {
    try {
      sleeps_.let_sleep_on(process_);
    } catch (const Error&) {
      // Then their time begins anew.
    }
  }

 private:
  const SleepObserver& sleeps_;
  FrozenProcess& process_;
};

/// `without_gpu`: so the process was found to be before the freeze.
void write(pid_t pid, const SnapshotOptions& options, bool without_gpu, Taken& taken) {
  const PageMap map = taken.encoder.finish();
  if (options.fsync) taken.image.start_writeback();
  taken.files.complete();
  state::ManifestT manifest;
  manifest.platform = taken.platform.get();
  manifest.platform->vdso = std::move(taken.captured.vdso);
  manifest.process = std::move(taken.captured.state);
  manifest.process->files = taken.files.take();
  if (without_gpu) refuse_devices(pid, *manifest.process);
  taken.image.finish(manifest, map);
  fault_point("snapshot: written");
  if (options.stop.stop_requested()) throw Error{Errc::cancelled, "snapshot: cancelled"};
  taken.image.commit(options.fsync);
  fault_point("snapshot: committed");

  SnapshotReport& report = taken.report;
  report.threads = manifest.process->threads.size();
  report.mappings = manifest.process->address_space->mappings.size();
  report.descriptors = manifest.process->descriptors->descriptors.size();
  report.stored_pages = map.stored_pages;
  report.zero_pages = taken.encoder.zero_pages();
  report.image_bytes = taken.image.size_bytes();
  if (manifest.process->gpu)
    for (const auto& buffer : manifest.process->gpu->buffers)
      report.gpu_buffer_bytes += buffer->size;
}

/// At the end the process runs on, or is dead and the image written.
void take(pid_t pid, const SnapshotOptions& options, bool& without_gpu, Taken& taken) {
  SnapshotReport& report = taken.report;
  Stopwatch& watch = taken.watch;
  GuestPause pause{pid, options.hook_patience, options.stop};
  std::optional<SleepObserver> sleeps{pid};  // a freeze wakes every thread: look before
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
  const SleepOnAfterFailure sleepers{*sleeps, process};
  settle_partial_writes(process);
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
  capture.tcp = options.tcp;
  capture.is_last = options.kill;
  refuse_other_worlds(pid, capture.refusals);  // again: it has run since
  refuse_to_enter(capture);
  throw_refusals(capture);
  auto loan = pager::Loan::take(pid, capture.pidfd);  // if it was restored a moment ago
  capture.is_being_loaded = loan.has_value();
  taken.captured = capture_process(capture, *sleeps);
  if (!options.kill) capture.held_connections.reset();
  throw_refusals(capture);

  // Every refusal is behind us: what follows only copies; from a fork, if there is one.  A thread
  // that sleeps on is let go of by the end of ours, which would be after the copy.
  auto copy = options.copy_on_write && !options.kill && !gpu && !sleeps->needs_to_sleep_on(process)
                  ? try_copy_process(capture, taken.captured)
                  : std::nullopt;
  report.copied_on_write = copy.has_value();
  const auto let_run = [&] {
    sleeps->shorten_timeouts(process);
    if (taken.lost.empty()) sleeps->let_sleep_on(process);
    process.thaw();
    pause.end();
  };
  if (copy) {
    let_run();
    sys::give_way();
    taken.encoder.give_way();
  }
  report.state = watch.lap();
  fault_point("snapshot: state read");

  const pid_t still = copy ? copy->pid() : pid;  // the one that stands still
  const PageSelection pages =
      select_pages(still, taken.captured.pages, loan ? loan->missing() : MissingPages{});
  record_guards(pages.guards, *taken.captured.state->address_space);
  if (saved) {
    saved->record(*taken.captured.state);
    record_gpu_buffers(pid, *taken.captured.state);
  }
  read_pages(sys::RemoteMemory{still}, loan ? &loan->image() : nullptr, pages, taken.encoder,
             options.progress, options.stop);
  loan.reset();
  for (const FileTable::Kept& kept : capture.files.kept())
    read_file_pages(kept.file, kept.address, kept.size, taken.encoder, options.stop);
  copy.reset();
  report.pages = watch.lap();
  fault_point("snapshot: pages read");
  taken.files = std::move(capture.files);

  if (options.kill) {
    // It never runs again.
    write(pid, options, without_gpu, taken);
    // Nothing of them may be in the way of those that a restore makes (TIME_WAIT).
    for (const sys::Fd& connection : capture.own_connections) sys::end_without_trace(connection);
    capture.own_connections.clear();
    if (gpu) saved->forget(), gpu->forget();
    if (capture.held_connections) capture.held_connections->fall_silent();
    process.kill([&] {
      if (capture.held_connections) capture.held_connections->forget();
    });
  } else if (!report.copied_on_write) {
    // It runs before the slow end.
    if (saved) taken.lost = saved->put_back();
    report.gpu_resume = watch.lap();
    let_run();
  }
  report.frozen = report.freeze + report.gpu_save + report.state + report.gpu_resume;
  if (!report.copied_on_write) report.frozen += report.pages;
  report.gpu_bytes = saved ? saved->bytes() : 0;
}

SnapshotReport tell(pid_t pid, const std::filesystem::path& path, const SnapshotOptions& options,
                    bool& without_gpu) {
  check_baseline(options.cpu_baseline);
  preflight(pid);
  Taken taken{path, options};  // cannot be written?  Then the target is not even touched
  std::packaged_task look_at_machine{[&] { return capture_platform(options.cpu_baseline); }};
  taken.platform = look_at_machine.get_future();
  // Threads that sleep on in their calls are let go of when the tracer thread ends.
  on_tracer_thread([&] { take(pid, options, without_gpu, taken); }, [&] { look_at_machine(); });
  // Nothing below looks at the process again.
  if (!options.kill) write(pid, options, without_gpu, taken);
  if (!taken.lost.empty()) throw_lost(pid, path, taken.lost);
  taken.report.commit = taken.watch.lap();
  taken.report.total = taken.watch.elapsed();
  return taken.report;
}

}  // namespace

SnapshotReport snapshot(pid_t pid, const std::filesystem::path& image,
                        const SnapshotOptions& options) {
  bool without_gpu = false;
  try {
    return tell(pid, image, options, without_gpu);
  } catch (const Error& error) {
    // Its first call of CUDA came between our look at it and the freeze: look again.
    if (error.code() != Errc::unsupported || !without_gpu || !gpu::has_begun_to_use_gpus(pid))
      throw;
  }
  return tell(pid, image, options, without_gpu);
}

}  // namespace icecore
