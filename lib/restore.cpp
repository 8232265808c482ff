// SPDX-License-Identifier: Apache-2.0
//
// The story of a restore:
//
//   check → start a stub → address space → contents (now, or lazily: then a pager serves them)
//   → attributes → threads → registers → (GPU memory) → run
#include "icecore/restore.hpp"

#include <fmt/format.h>
#include <signal.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "check.hpp"
#include "compat/platform.hpp"
#include "fault_injection.hpp"
#include "gpu/restoration.hpp"
#include "guest_area.hpp"
#include "memory/page_store.hpp"
#include "memory/prefetch.hpp"
#include "restore_story.hpp"
#include "state/contents.hpp"
#include "stopwatch.hpp"
#include "sys/process.hpp"
#include "tracee/tracer_thread.hpp"

namespace icecore {

namespace {

void throw_if_incompatible(const ImageReader& image, const RestoreOptions& options,
                           const gpu::Restoration* gpu) {
  std::vector<std::string> reasons;
  for (const Finding& finding : check_image(image, options, gpu)) {
    if (finding.ok) continue;
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

/// Less than this is filled before a pager would have started.
constexpr std::uint64_t kWorthAPager = 1024;

bool is_lazy(const ImageReader& image, const RestoreOptions& options) {
  if (options.loading == Loading::eager) return false;
  std::uint64_t pages = 0;
  for (const StoredRange& range : lazy_ranges(*image.manifest().process, image.page_map().runs))
    pages += range.pages;
  return pages >= (options.loading == Loading::lazy ? 1 : kWorthAPager);
}

/// With what the process used last time.  One that cannot be used is no reason not to restore.
class LastTime {
 public:
  LastTime(const Image::Data& image, RestoreReport& report)
      : report_(report), path_(WorkingSet::path_for(std::filesystem::absolute(image.path))) {
    try {
      if (auto set = WorkingSet::open(path_, image.reader)) set_.emplace(std::move(*set));
    } catch (const Error& error) {
      give_up(error);
    }
  }

  const std::filesystem::path& path() const { return path_; }
  const WorkingSet* set() const { return set_ ? &*set_ : nullptr; }

  /// Puts the pages into their places.
  void prefetch(ProcessRebuild::Lazy& memory) {
    if (!set_) return;
    try {
      report_.prefetched_bytes =
          icecore::prefetch(*set_, memory.missing, memory.faults) * kPageSize;
    } catch (const Error& error) {
      give_up(error);
    }
  }

 private:
  void give_up(const Error& error) {
    set_.reset();
    report_.warnings.push_back(fmt::format("{}: not used: {}", path_.string(), error.what()));
  }

  RestoreReport& report_;
  std::filesystem::path path_;
  std::optional<WorkingSet> set_;
};

/// What will be read, for the disk to begin with.
std::vector<FileToRead> files_to_read(const Image::Data& image, const PageStore& pages, bool lazy,
                                      const LastTime* last_time) {
  const state::ProcessT& process = *image.reader.manifest().process;
  const WorkingSet* const set = last_time != nullptr ? last_time->set() : nullptr;
  std::vector<FileToRead> files = files_to_read(
      process, pages, lazy, set != nullptr ? set->file_pages() : std::span<const FilePages>{});
  if (!files.empty() && files[0].path.empty()) files[0].open = &image.file.fd();
  if (set != nullptr)
    files.push_back({last_time->path(), nullptr, {{0, set->pages().size() * kPageSize}}});
  return files;
}

/// Puts what the process touched first last time into its place, and tells the pager what else
/// there is.
pager::Orders prepare_memory(const RestoreOptions& options, bool waits,
                             ProcessRebuild::Lazy& memory, LastTime& last_time,
                             RestoreReport& report) {
  pager::Orders orders;
  last_time.prefetch(memory);
  orders.ranges = memory.missing.ranges();
  orders.filling = static_cast<pager::Filling>(options.fill);
  orders.waits = waits;
  orders.record = options.record == Record::yes ||
                  (options.record == Record::automatic && last_time.set() == nullptr);
  orders.record_for = options.record_for;
  orders.working_set = last_time.path();
  report.recording = orders.record;
  report.missing_bytes = memory.missing.pages() * kPageSize;
  return orders;
}

Restored tell(const Image::Data& data, const RestoreOptions& options, bool in_namespace,
              const Gate& gate) {
  Stopwatch watch;
  RestoreReport report;
  const ImageReader& image = data.reader;
  const state::ProcessT& process = *image.manifest().process;
  check_invocation(options.invocation);
  const auto gpu = gpu::Restoration::of(process, options);
  throw_if_incompatible(image, options, gpu.get());
  report.check = watch.lap();
  fault_point("restore: checked");

  // It opens the image while we build.
  report.lazy = is_lazy(image, options);
  std::optional<pager::PagerProcess> pager;
  std::optional<LastTime> last_time;
  if (report.lazy) {
    pager.emplace(data.file);
    last_time.emplace(data, report);
  } else {
    data.file.expect_all();
  }

  const PageStore pages{image};
  std::optional<ReadAhead> read_ahead{
      files_to_read(data, pages, report.lazy, last_time ? &*last_time : nullptr)};

  // From here to let_run() every exception, and our own death, kills what has been built.
  ProcessRebuild rebuild{process, pages, options, in_namespace, foreign_vdso(image.manifest())};
  fault_point("restore: started");
  stop_if_asked(options);

  rebuild.make_address_space();
  report.build = watch.lap();
  fault_point("restore: mapped");
  stop_if_asked(options);

  report.filled_bytes = rebuild.fill_memory(report.lazy, options.progress, options.stop);
  if (report.lazy) {
    ProcessRebuild::Lazy memory = rebuild.make_lazy();
    const bool waits = static_cast<bool>(gate);
    pager::Orders orders = prepare_memory(options, waits, memory, *last_time, report);
    report.filled_bytes += report.prefetched_bytes;
    orders.pid = rebuild.pid();
    pager->serve(orders, memory.faults, rebuild.process());
    // Who is waited for now takes its faults one by one instead: it may not need them all.
    if (waits && last_time->set() != nullptr) {
      rebuild.map_file_pages(last_time->set()->file_pages());
      rebuild.touch_private_pages();
    }
  }
  read_ahead.reset();
  report.fill = watch.lap();
  fault_point("restore: filled");
  stop_if_asked(options);

  // Memory is complete, or comes when it is touched: the threads register addresses in it.
  rebuild.set_attributes();
  rebuild.make_threads();
  report.build += watch.lap();
  fault_point("restore: threads made");
  stop_if_asked(options);

  rebuild.set_registers();
  report.thaw = watch.lap();
  if (gpu) {
    // Nothing of the process runs but the thread that does the driver's work.
    gpu->run(rebuild.threads(), rebuild.pid());
    report.gpu_bytes = gpu->bytes();
    report.gpu = watch.lap();
    fault_point("restore: GPU memory there");
  }
  greet_guest(process, rebuild.pid(), rebuild.process(), options.invocation);
  fault_point("restore: ready");
  report.thaw += watch.lap();
  report.total = watch.elapsed();
  report.in_namespace = in_namespace;
  if (gate) gate(rebuild.pid(), rebuild.process(), report);
  watch.lap();  // how long it was kept waiting is not ours

  ProcessRebuild::Running running = rebuild.let_run();
  if (pager) pager->release();
  const auto let_run = watch.lap();
  report.thaw += let_run;
  report.total += let_run;
  return Restored{std::move(running), std::move(report), std::move(pager)};
}

constexpr int kIdRetries = 50;
constexpr std::chrono::milliseconds kIdPause{1};

}  // namespace

/// On the wanted ids; or, when that is left to us and they are taken, in a namespace of its own.
Restored restore_through(const Image::Data& image, const RestoreOptions& options,
                         const Gate& gate) {
  const auto& process = *image.reader.manifest().process;
  const bool automatic = options.pids == Pids::automatic;
  bool in_namespace =
      options.pids == Pids::in_namespace || (automatic && !ids_in_use(process).empty());
  for (int retries = 0;;) {
    try {
      return on_tracer_thread([&] { return tell(image, options, in_namespace, gate); });
    } catch (const Error& error) {
      if (in_namespace || error.sys_errno() != EEXIST) throw;
      // Taken since we looked; or by nobody any more (sys/process.hpp), and free in a moment.
      const bool free_soon = ids_in_use(process).empty() && ++retries <= kIdRetries;
      if (!free_soon && !automatic) throw;
      in_namespace = !free_soon;
    }
    if (!in_namespace) std::this_thread::sleep_for(kIdPause);
  }
}

RestoredProcess restore(const Image& image, const RestoreOptions& options) {
  return RestoredProcess{std::make_unique<RestoredProcess::State>(
      RestoredProcess::State{restore_through(image.data(), options, {})})};
}

RestoredProcess::RestoredProcess(std::unique_ptr<State> state) : state_(std::move(state)) {}
RestoredProcess::RestoredProcess(RestoredProcess&&) noexcept = default;
RestoredProcess& RestoredProcess::operator=(RestoredProcess&&) noexcept = default;
RestoredProcess::~RestoredProcess() = default;

pid_t RestoredProcess::pid() const noexcept { return state_->running.pid; }
int RestoredProcess::pidfd() const noexcept { return state_->running.pidfd.get(); }
const RestoreReport& RestoredProcess::report() const noexcept { return state_->report; }

int RestoredProcess::wait() {
  if (state_->pager) {
    sys::await_end(state_->running.pidfd);
    state_->pager->let_it_see_the_end();
  }
  const int status = sys::wait_child(state_->running.pid);
  if (state_->running.init != 0) sys::wait_child(state_->running.init);
  return status;
}

namespace {

/// The upper end of the bucket in which the fault lies that `part` of all were quicker than.
std::chrono::nanoseconds percentile(const pager::Head& head, double part) {
  std::uint64_t total = 0;
  for (const auto& bucket : head.latency) total += bucket;
  auto left = static_cast<std::int64_t>(static_cast<double>(total) * part);
  for (std::size_t i = 0; i < head.latency.size(); ++i)
    if ((left -= static_cast<std::int64_t>(head.latency[i].load())) < 0)
      return std::chrono::nanoseconds{std::int64_t{1} << i};
  return {};
}

}  // namespace

PagerStatistics RestoredProcess::pager_statistics() const noexcept {
  if (!state_->pager) return {.complete = true};
  const pager::Head& head = state_->pager->head();
  return {
      .faults = head.faults,
      .zero_faults = head.zero_faults,
      .fault_bytes = head.fault_pages * kPageSize,
      .background_bytes = head.fill_pages * kPageSize,
      .missing_bytes = head.missing_pages * kPageSize,
      .lost_bytes = head.poisoned_pages * kPageSize,
      .restarts = head.restarts,
      .fault_p50 = percentile(head, 0.5),
      .fault_p99 = percentile(head, 0.99),
      .complete = head.complete != 0,
  };
}

bool RestoredProcess::wait_filled(std::optional<std::chrono::milliseconds> patience) const {
  return !state_->pager || state_->pager->wait_filled(patience);
}

int RestoredProcess::pager_fd() const noexcept { return state_->pager ? state_->pager->fd() : -1; }

bool RestoredProcess::pager_lost() const {
  return state_->pager && state_->pager->wait_filled(std::chrono::milliseconds{0}) &&
         state_->pager->head().complete == 0;
}

std::optional<std::string> RestoredProcess::pager_message() const {
  return state_->pager ? state_->pager->message() : std::nullopt;
}

void RestoredProcess::signal(int number) const { sys::send_signal(state_->running.pidfd, number); }

}  // namespace icecore
