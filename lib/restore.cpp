// SPDX-License-Identifier: Apache-2.0
//
// The story of a restore:
//
//   check → start a stub → address space → contents → attributes → threads → registers → run
#include "icecore/restore.hpp"

#include <fmt/format.h>
#include <signal.h>

#include "check.hpp"
#include "fault_injection.hpp"
#include "image/image_data.hpp"
#include "memory/page_store.hpp"
#include "state/rebuild.hpp"
#include "stopwatch.hpp"
#include "sys/process.hpp"
#include "tracee/tracer_thread.hpp"

namespace icecore {

struct RestoredProcess::State {
  ProcessRebuild::Running running;
  RestoreReport report;
};

namespace {

using Restored = std::pair<ProcessRebuild::Running, RestoreReport>;

void throw_if_incompatible(const ImageReader& image, const RestoreOptions& options) {
  std::vector<std::string> reasons;
  for (const Finding& finding : check_image(image, options)) {
    std::string reason = finding.subject;
    if (!finding.reason.empty()) reason += ": " + finding.reason;
    if (!finding.remedy.empty()) reason += ": " + finding.remedy;
    reasons.push_back(std::move(reason));
  }
  if (!reasons.empty())
    throw Error{Errc::incompatible, "the image cannot be restored here:", std::move(reasons)};
}

void stop_if_asked(const RestoreOptions& options) {
  if (options.stop.stop_requested()) throw Error{Errc::cancelled, "restore: cancelled"};
}

Restored tell(const ImageReader& image, const RestoreOptions& options, bool in_namespace) {
  Stopwatch watch;
  RestoreReport report;
  const state::ProcessT& process = *image.manifest().process;
  throw_if_incompatible(image, options);
  report.check = watch.lap();
  fault_point("restore: checked");

  // From here to let_run() every exception, and our own death, kills what has been built.
  ProcessRebuild rebuild{process, options, in_namespace};
  fault_point("restore: started");
  stop_if_asked(options);

  rebuild.make_address_space();
  report.build = watch.lap();
  fault_point("restore: mapped");
  stop_if_asked(options);

  const PageStore pages{image};
  report.filled_bytes = rebuild.fill_memory(pages, options.progress, options.stop);
  report.fill = watch.lap();
  fault_point("restore: filled");
  stop_if_asked(options);

  // Memory is complete: the threads register addresses in it.
  rebuild.set_attributes();
  rebuild.make_threads();
  report.build += watch.lap();
  fault_point("restore: threads made");
  stop_if_asked(options);

  rebuild.set_registers();
  fault_point("restore: ready");
  ProcessRebuild::Running running = rebuild.let_run();
  report.thaw = watch.lap();
  report.total = watch.elapsed();
  report.in_namespace = in_namespace;
  return {std::move(running), report};
}

/// On the wanted ids; or, when that is left to us and they are taken, in a namespace of its own.
Restored tell_with_ids(const ImageReader& image, const RestoreOptions& options) {
  const bool automatic = options.pids == Pids::automatic;
  const bool in_namespace = options.pids == Pids::in_namespace ||
                            (automatic && !ids_in_use(*image.manifest().process).empty());
  try {
    return on_tracer_thread([&] { return tell(image, options, in_namespace); });
  } catch (const Error& error) {
    // Taken since we looked.
    if (!automatic || in_namespace || error.sys_errno() != EEXIST) throw;
  }
  return on_tracer_thread([&] { return tell(image, options, true); });
}

}  // namespace

RestoredProcess restore(const Image& image, const RestoreOptions& options) {
  auto [running, report] = tell_with_ids(image.data().reader, options);
  return RestoredProcess{
      std::make_unique<RestoredProcess::State>(RestoredProcess::State{std::move(running), report})};
}

RestoredProcess::RestoredProcess(std::unique_ptr<State> state) : state_(std::move(state)) {}
RestoredProcess::RestoredProcess(RestoredProcess&&) noexcept = default;
RestoredProcess& RestoredProcess::operator=(RestoredProcess&&) noexcept = default;
RestoredProcess::~RestoredProcess() = default;

pid_t RestoredProcess::pid() const noexcept { return state_->running.pid; }
int RestoredProcess::pidfd() const noexcept { return state_->running.pidfd.get(); }
const RestoreReport& RestoredProcess::report() const noexcept { return state_->report; }

int RestoredProcess::wait() {
  const int status = sys::wait_child(state_->running.pid);
  if (state_->running.init != 0) sys::wait_child(state_->running.init);
  return status;
}

void RestoredProcess::signal(int number) const { sys::send_signal(state_->running.pidfd, number); }

}  // namespace icecore
