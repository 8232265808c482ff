// SPDX-License-Identifier: Apache-2.0
//
// The C interface, one to one over the C++ one.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "icecore/error.hpp"
#include "icecore/icecore.h"
#include "icecore/restore.hpp"
#include "icecore/snapshot.hpp"

struct icecore_error {
  icecore_code code;
  int number;
  std::string message;
  std::vector<std::string> reasons;
};

struct icecore_image {
  icecore::Image image;
};

struct icecore_process {
  icecore::RestoredProcess process;
};

struct icecore_prepared {
  icecore::PreparedProcess prepared;
};

namespace {

using icecore::Errc;

icecore_code to_c(Errc code) {
  switch (code) {
    case Errc::invalid_argument:
      return ICECORE_INVALID_ARGUMENT;
    case Errc::target_gone:
      return ICECORE_TARGET_GONE;
    case Errc::permission:
      return ICECORE_PERMISSION;
    case Errc::unsupported:
      return ICECORE_UNSUPPORTED;
    case Errc::corrupt_image:
      return ICECORE_CORRUPT_IMAGE;
    case Errc::incompatible:
      return ICECORE_INCOMPATIBLE;
    case Errc::io:
      return ICECORE_IO;
    case Errc::cancelled:
      return ICECORE_CANCELLED;
    case Errc::internal:
      return ICECORE_INTERNAL;
  }
  return ICECORE_INTERNAL;
}

icecore_error* out_of_memory() noexcept {
  static icecore_error error{ICECORE_IO, ENOMEM, "out of memory", {}};
  return &error;
}

/// Every function that can fail is one call of this.
template <class Body>
icecore_error* guarded(Body body) noexcept {
  try {
    try {
      body();
      return nullptr;
    } catch (const icecore::Error& error) {
      return new icecore_error{to_c(error.code()), error.sys_errno(), error.what(),
                               error.reasons()};
    } catch (const std::bad_alloc&) {
      return out_of_memory();
    } catch (const std::exception& error) {
      return new icecore_error{ICECORE_INTERNAL, 0, error.what(), {}};
    }
  } catch (...) {
    return out_of_memory();
  }
}

void require(bool condition, const char* message) {
  if (!condition) throw icecore::Error{Errc::invalid_argument, message};
}

/// As much as both sides know; the rest is 0.
template <class Options>
Options known_part(const Options* options) {
  Options known{};
  if (options == nullptr) return known;
  require(options->struct_size >= sizeof(std::size_t), "struct_size is not set");
  std::memcpy(&known, options, std::min(options->struct_size, sizeof known));
  return known;
}

template <class Results>
void give(Results results, Results* out) {
  const std::size_t size = std::min(out->struct_size, sizeof results);
  results.struct_size = out->struct_size;
  if (size >= sizeof(std::size_t)) std::memcpy(static_cast<void*>(out), &results, size);
}

std::vector<std::string> strings(const char* const* list) {
  std::vector<std::string> all;
  for (; list != nullptr && *list != nullptr; ++list) all.emplace_back(*list);
  return all;
}

icecore::External external_of(const icecore_external& given) {
  if (given.path != nullptr) return {std::filesystem::path{given.path}};
  if (given.descriptor >= 0) return {given.descriptor};
  return {icecore::External::Close{}};
}

icecore::TcpConnections tcp_of(icecore_tcp given) {
  require(given >= ICECORE_TCP_REFUSE && given <= ICECORE_TCP_ESTABLISHED,
          "unknown value of icecore_tcp");
  constexpr icecore::TcpConnections kTcp[] = {icecore::TcpConnections::refuse,
                                              icecore::TcpConnections::close,
                                              icecore::TcpConnections::established};
  return kTcp[given];
}

icecore::RestoreOptions options_of(const icecore_restore_options* options) {
  const auto given = known_part(options);
  require(given.pids >= ICECORE_PIDS_AUTO && given.pids <= ICECORE_PIDS_NAMESPACE,
          "unknown value of icecore_pids");
  require(given.loading >= ICECORE_LOAD_AUTO && given.loading <= ICECORE_LOAD_EAGER,
          "unknown value of icecore_loading");
  icecore::RestoreOptions result;
  constexpr icecore::Pids kPids[] = {icecore::Pids::automatic, icecore::Pids::same,
                                     icecore::Pids::in_namespace};
  constexpr icecore::Loading kLoading[] = {icecore::Loading::automatic, icecore::Loading::lazy,
                                           icecore::Loading::eager};
  result.pids = kPids[given.pids];
  result.loading = kLoading[given.loading];
  for (std::size_t i = 0; i < given.external_count; ++i)
    result.external.insert_or_assign(given.external[i].number, external_of(given.external[i]));
  if (given.standard_streams != nullptr)
    std::copy_n(given.standard_streams, 3, result.standard_streams.begin());
  for (std::size_t i = 0; i < given.gpu_map_count; ++i) {
    const icecore_gpu_pair& pair = given.gpu_map[i];
    require(pair.of_image != nullptr && pair.here != nullptr, "gpu_map: a null pointer");
    result.gpu_map.insert_or_assign(pair.of_image, pair.here);
  }
  result.gpu_move_patience = std::chrono::milliseconds{given.gpu_move_patience_ms};
  result.tcp = tcp_of(given.tcp);
  result.invocation = {.variables = strings(given.variables),
                       .arguments = strings(given.arguments)};
  return result;
}

std::uint64_t ns(std::chrono::nanoseconds time) { return static_cast<std::uint64_t>(time.count()); }

}  // namespace

extern "C" {

icecore_code icecore_error_code(const icecore_error* error) {
  return error != nullptr ? error->code : ICECORE_OK;
}
int icecore_error_errno(const icecore_error* error) { return error != nullptr ? error->number : 0; }
const char* icecore_error_message(const icecore_error* error) {
  return error != nullptr ? error->message.c_str() : "";
}
size_t icecore_error_reason_count(const icecore_error* error) {
  return error != nullptr ? error->reasons.size() : 0;
}
const char* icecore_error_reason(const icecore_error* error, size_t index) {
  return index < icecore_error_reason_count(error) ? error->reasons[index].c_str() : nullptr;
}
void icecore_error_free(icecore_error* error) {
  if (error != out_of_memory()) delete error;
}

icecore_error* icecore_snapshot(pid_t pid, const char* image_path,
                                const icecore_snapshot_options* options,
                                icecore_snapshot_report* report) {
  return guarded([&] {
    require(image_path != nullptr, "icecore_snapshot: no path");
    const auto given = known_part(options);
    icecore::SnapshotOptions wanted;
    wanted.encoding =
        given.encoding == ICECORE_ZSTD ? icecore::Encoding::zstd : icecore::Encoding::raw;
    if (given.zstd_level != 0) wanted.zstd_level = given.zstd_level;
    wanted.kill = given.kill != 0;
    wanted.fsync = given.no_fsync == 0;
    wanted.outside.assign(given.outside, given.outside + given.outside_count);
    if (given.cpu_baseline != nullptr) wanted.cpu_baseline = given.cpu_baseline;
    require(given.gpu == ICECORE_GPU_CHECKPOINT || given.gpu == ICECORE_GPU_NONE,
            "unknown value of icecore_gpu");
    if (given.gpu == ICECORE_GPU_NONE) wanted.gpu = icecore::GpuPolicy::none;
    const auto patience = [](unsigned ms, std::chrono::milliseconds& to) {
      if (ms != 0) to = std::chrono::milliseconds{ms};
    };
    patience(given.gpu_patience_ms, wanted.gpu_patience);
    patience(given.gpu_move_patience_ms, wanted.gpu_move_patience);
    patience(given.hook_patience_ms, wanted.hook_patience);
    wanted.copy_on_write = given.copy_on_write != 0;
    wanted.tcp = tcp_of(given.tcp);
    const icecore::SnapshotReport made = icecore::snapshot(pid, image_path, wanted);
    if (report == nullptr) return;
    give({.struct_size = 0,
          .total_ns = ns(made.total),
          .frozen_ns = ns(made.frozen),
          .freeze_ns = ns(made.freeze),
          .state_ns = ns(made.state),
          .pages_ns = ns(made.pages),
          .commit_ns = ns(made.commit),
          .threads = made.threads,
          .mappings = made.mappings,
          .descriptors = made.descriptors,
          .stored_pages = made.stored_pages,
          .zero_pages = made.zero_pages,
          .image_bytes = made.image_bytes,
          .gpu_lock_ns = ns(made.gpu_lock),
          .gpu_save_ns = ns(made.gpu_save),
          .gpu_resume_ns = ns(made.gpu_resume),
          .gpu_bytes = made.gpu_bytes,
          .gpu_buffer_bytes = made.gpu_buffer_bytes,
          .copied_on_write = made.copied_on_write ? 1U : 0U},
         report);
  });
}

icecore_error* icecore_open(const char* image_path, icecore_image** image) {
  return guarded([&] {
    require(image_path != nullptr && image != nullptr, "icecore_open: a null pointer");
    *image = new icecore_image{icecore::Image::open(image_path)};
  });
}

void icecore_image_free(icecore_image* image) { delete image; }

icecore_error* icecore_check(const icecore_image* image, const icecore_restore_options* options) {
  return guarded([&] {
    require(image != nullptr, "icecore_check: no image");
    std::vector<std::string> reasons;
    for (const icecore::Finding& finding : image->image.check(options_of(options)))
      if (!finding.ok) reasons.push_back(finding.subject + ": " + finding.reason);
    if (!reasons.empty())
      throw icecore::Error{Errc::incompatible,
                           "the image cannot be restored here:", std::move(reasons)};
  });
}

icecore_error* icecore_restore(const icecore_image* image, const icecore_restore_options* options,
                               icecore_process** process) {
  return guarded([&] {
    require(image != nullptr && process != nullptr, "icecore_restore: a null pointer");
    *process = new icecore_process{icecore::restore(image->image, options_of(options))};
  });
}

icecore_error* icecore_prepare(const icecore_image* image, const icecore_restore_options* options,
                               icecore_prepared** prepared) {
  return guarded([&] {
    require(image != nullptr && prepared != nullptr, "icecore_prepare: a null pointer");
    *prepared = new icecore_prepared{icecore::prepare(image->image, options_of(options))};
  });
}

icecore_error* icecore_start(icecore_prepared* prepared, icecore_process** process) {
  const std::unique_ptr<icecore_prepared> owned{prepared};
  return guarded([&] {
    require(prepared != nullptr && process != nullptr, "icecore_start: a null pointer");
    *process = new icecore_process{std::move(owned->prepared).start()};
  });
}

pid_t icecore_prepared_pid(const icecore_prepared* prepared) { return prepared->prepared.pid(); }
void icecore_prepared_free(icecore_prepared* prepared) { delete prepared; }

pid_t icecore_process_pid(const icecore_process* process) { return process->process.pid(); }
int icecore_process_pidfd(const icecore_process* process) { return process->process.pidfd(); }
void icecore_process_free(icecore_process* process) { delete process; }

icecore_error* icecore_wait(icecore_process* process, int* status) {
  return guarded([&] {
    require(process != nullptr, "icecore_wait: no process");
    const int ended = process->process.wait();
    if (status != nullptr) *status = ended;
  });
}

void icecore_process_statistics(const icecore_process* process, icecore_statistics* statistics) {
  const icecore::RestoreReport& report = process->process.report();
  const icecore::PagerStatistics pager = process->process.pager_statistics();
  give({.struct_size = 0,
        .total_ns = ns(report.total),
        .check_ns = ns(report.check),
        .build_ns = ns(report.build),
        .fill_ns = ns(report.fill),
        .thaw_ns = ns(report.thaw),
        .filled_bytes = report.filled_bytes,
        .prefetched_bytes = report.prefetched_bytes,
        .faults = pager.faults,
        .fault_bytes = pager.fault_bytes,
        .background_bytes = pager.background_bytes,
        .missing_bytes = pager.missing_bytes,
        .lost_bytes = pager.lost_bytes,
        .lazy = report.lazy ? 1 : 0,
        .in_namespace = report.in_namespace ? 1 : 0,
        .complete = pager.complete ? 1 : 0,
        .gpu_ns = ns(report.gpu),
        .gpu_bytes = report.gpu_bytes},
       statistics);
}

}  // extern "C"
