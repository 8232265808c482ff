// SPDX-License-Identifier: Apache-2.0
#include "gpu/session.hpp"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>

#include "icecore/error.hpp"
#include "sys/cgroup.hpp"
#include "sys/proc_maps.hpp"
#include "sys/process.hpp"
#include "sys/procfs.hpp"

namespace icecore::gpu {
namespace {

[[noreturn]] void refuse(pid_t pid, std::vector<std::string> reasons) {
  throw Error{Errc::unsupported, fmt::format("process {} cannot be snapshotted:", pid),
              std::move(reasons)};
}

std::string with_remedy(const Problem& problem) {
  return problem.remedy.empty() ? problem.reason : problem.reason + ": " + problem.remedy;
}

void refuse_stopped(pid_t pid) {
  const auto stat = sys::read_stat(pid);
  if (stat && (stat->state == 'T' || stat->state == 't'))
    refuse(pid, {"gpu: the process is stopped, and the driver saves only one that runs: continue "
                 "it (SIGCONT) first"});
  if (sys::is_frozen(pid))
    refuse(pid, {"gpu: the control group of the process is frozen, and the driver saves only one "
                 "that runs: thaw it first"});
}

/// Each managed allocation adds a mapping of this device; one is always there.
void refuse_managed_memory(pid_t pid, const ProcessView& view) {
  if (view.managed_mappings > 1)
    refuse(pid, {fmt::format("gpu: managed memory (cudaMallocManaged; {} mappings of nvidia-uvm): "
                             "the driver cannot save it: use cudaMalloc",
                             view.managed_mappings)});
}

/// Leaves a process stopped that would only wait for ever, or crash.
void give_up(ProcessCheckpoint& driver, pid_t pid) noexcept {
  driver.leave();
  try {
    sys::send_signal(pid, SIGSTOP);
  } catch (const std::exception&) {
    // It has ended.
  }
}

/// Private memory without a file, which is all that the driver puts bytes into.
bool is_plain(const sys::Vma& vma) { return !vma.shared && vma.inode == 0 && vma.name.empty(); }

/// The parts of [start, end) that no mapping of `others` covers.
void subtract(std::uint64_t start, std::uint64_t end, const std::vector<sys::Vma>& others,
              std::vector<state::AddressRange>& left) {
  for (const sys::Vma& other : others) {
    if (other.end <= start) continue;
    if (other.start >= end) break;
    if (start < other.start) left.emplace_back(start, other.start);
    start = std::max(start, other.end);
  }
  if (start < end) left.emplace_back(start, end);
}

}  // namespace

// ---- before the freeze ------------------------------------------------------------------------

Session::Session(pid_t pid, const ProcessView& view, const SnapshotOptions& options)
    : pid_(pid),
      view_(view),
      driver_({.work = options.gpu_patience, .move = options.gpu_move_patience}, options.stop) {}

std::unique_ptr<Session> Session::begin(pid_t pid, const SnapshotOptions& options) {
  const ProcessView view = look_at(pid);
  if (!view.uses_gpu()) return {};
  if (options.gpu == GpuPolicy::none) {
    if (view.devices.empty()) return {};
    std::vector<std::string> reasons;
    for (const std::string& device : view.devices)
      reasons.push_back(device + ": the process uses a GPU, which --gpu none excludes");
    refuse(pid, std::move(reasons));
  }

  std::unique_ptr<Session> session{new Session{pid, view, options}};
  try {
    return session->quiesce() ? std::move(session) : nullptr;
  } catch (const Error& error) {
    if (!error.reasons().empty()) throw;
    const std::string lost = session->driver_.roll_back({});
    std::string reason = fmt::format("gpu: {}", error.what());
    if (!lost.empty()) session->driver_.leave();
    if (!lost.empty())
      reason += fmt::format(
          "; its calls of CUDA may wait for ever, since it could not be "
          "unlocked: {}",
          lost);
    if (error.code() == Errc::cancelled) throw Error{Errc::cancelled, reason};
    std::vector<std::string> reasons = session->suspicions();
    reasons.insert(reasons.begin(), reason);
    refuse(pid, std::move(reasons));
  }
}

std::vector<std::string> Session::suspicions() const {
  std::vector<std::string> reasons;
  for (const std::string& use : view_.unsupported)
    reasons.push_back(
        fmt::format("gpu: the process seems to use {}, which the driver cannot save", use));
  return reasons;
}

/// False when the process has the driver's library but has never used it.
bool Session::quiesce() {
  if (const Problem problem = driver_.load(here_); !problem.reason.empty()) {
    if (view_.devices.empty()) return false;
    refuse(pid_, {fmt::format("gpu: {} ({})", with_remedy(problem), view_.devices.front())});
  }
  refuse_stopped(pid_);
  if (!driver_.attach(pid_)) {
    if (view_.devices.empty()) return false;
    refuse(pid_, {fmt::format("gpu: {}: open, but not by CUDA (NVML?): the driver cannot save it",
                              view_.devices.front())});
  }
  if (driver_.found() > ProcessState::checkpointed)
    refuse(pid_, {fmt::format("gpu: somebody else is about to save or to bring back its device "
                              "memory, or that has failed (state {})",
                              static_cast<int>(driver_.found()))});
  refuse_managed_memory(pid_, view_);
  refuse_too_little_memory();
  driver_.quiesce();
  return true;
}

/// What is in GPUs comes into the process's memory, and beyond its limit the kernel kills.  How
/// much that will be is known where nobody else has anything there.
void Session::refuse_too_little_memory() {
  const auto room = sys::memory_room(pid_);
  if (!room || others_use_gpus(pid_, driver_.helper())) return;
  DriverHere now;
  if (!driver_.measure(now).reason.empty()) return;
  std::uint64_t used = 0;
  for (const DeviceInfo& device : now.devices) used += device.total_bytes - device.free_bytes;
  used -= std::min(used, kDriverOverhead);  // its own, and that of our helper
  if (used <= room->bytes) return;
  refuse(pid_,
         {fmt::format("gpu: {} MiB of device memory would come into the process's memory, and "
                      "{} leaves {} MiB: raise it",
                      used >> 20, room->limit, room->bytes >> 20)});
}

Session::~Session() { driver_.roll_back({}); }

// ---- while the process stands still -----------------------------------------------------------

SavedMemory::SavedMemory(Session& session, FrozenProcess& process)
    : session_(session), process_(process) {
  auto threads = process.threads();
  gate_ = ThreadGate{find_thread(threads, session.driver().restore_thread())};
  const std::vector<sys::Vma> before = sys::read_maps(process.pid());
  try {
    session.driver().save(gate_);
    compare(before, sys::read_maps(process.pid()));
    refuse_what_is_left();
  } catch (const Error& error) {
    if (error.code() == Errc::target_gone) {
      session.driver().leave();
      throw Error{Errc::target_gone,
                  fmt::format("process {} ended while its device memory was saved: is its memory "
                              "limit (memory.max) too low for that?",
                              process.pid())};
    }
    const std::string lost = session.driver().roll_back(gate_);
    if (!lost.empty()) give_up(session.driver(), process.pid());
    if (error.code() == Errc::cancelled && lost.empty()) throw;
    std::vector<std::string> reasons = error.reasons();
    if (reasons.empty()) {
      reasons = session.suspicions();
      reasons.insert(reasons.begin(), fmt::format("gpu: {}", error.what()));
    }
    if (!lost.empty())
      reasons.push_back(
          fmt::format("gpu: the process is lost, and left stopped: its device memory "
                      "could not be brought back: {}",
                      lost));
    refuse(process.pid(), std::move(reasons));
  }
}

SavedMemory::~SavedMemory() { put_back(); }

void SavedMemory::compare(const std::vector<sys::Vma>& before, const std::vector<sys::Vma>& after) {
  // Only the driver's thread has run in between.
  for (const sys::Vma& vma : after)
    if (is_plain(vma)) subtract(vma.start, vma.end, before, carriers_);
  for (const sys::Vma& vma : before)
    if (is_device_path(vma.name)) subtract(vma.start, vma.end, after, holes_);
  for (const state::AddressRange& range : carriers_) bytes_ += range.end() - range.start();
}

void SavedMemory::refuse_what_is_left() const {
  const ProcessView view = look_at(process_.pid());
  if (view.devices.empty()) return;
  std::vector<std::string> reasons;
  for (const std::string& device : view.devices)
    reasons.push_back(device +
                      ": still there after the driver has saved the GPU's memory (NVML, "
                      "graphics, or another library): cannot be snapshotted");
  refuse(process_.pid(), std::move(reasons));
}

std::string SavedMemory::put_back() noexcept {
  if (!needs_restore_) return {};
  needs_restore_ = false;
  try {
    session_.driver().restore(gate_, {});
    // Before it runs: whoever has sent it a SIGSTOP meanwhile stops it then, and with it the
    // driver.
    session_.driver().resume(gate_);
    return {};
  } catch (const std::exception&) {
    std::string lost = session_.driver().roll_back(gate_);
    if (!lost.empty()) give_up(session_.driver(), process_.pid());
    return lost;
  }
}

void SavedMemory::record(state::ProcessT& process) const {
  auto gpu = std::make_unique<state::GpuT>();
  const DriverHere& here = session_.here();
  gpu->state_found = static_cast<state::GpuState>(session_.driver().found());
  gpu->restore_thread = session_.driver().restore_thread();
  gpu->driver_api = static_cast<std::uint32_t>(here.api);
  gpu->driver_release = here.release;
  gpu->saved_bytes = bytes_;
  for (const DeviceInfo& info : here.devices) {
    auto device = std::make_unique<state::GpuDeviceT>();
    device->uuid.assign(std::begin(info.uuid.bytes), std::end(info.uuid.bytes));
    device->name = info.name;
    device->compute_capability = info.compute_capability;
    device->memory_bytes = info.total_bytes;
    gpu->devices.push_back(std::move(device));
  }
  process.gpu = std::move(gpu);
  process.address_space->holes = holes_;
  mark_gpu_data(process, carriers_);
}

void mark_gpu_data(state::ProcessT& process, const std::vector<state::AddressRange>& ranges) {
  for (state::Mapping& mapping : process.address_space->mappings) {
    const auto holds = [&](const state::AddressRange& range) {
      return range.start() < mapping.end() && mapping.start() < range.end();
    };
    if (mapping.kind() == state::MappingKind::anonymous && std::ranges::any_of(ranges, holds))
      mapping = {mapping.start(),
                 mapping.end(),
                 mapping.offset(),
                 mapping.object(),
                 mapping.vm_flags() | static_cast<std::uint64_t>(state::MappingFlag::gpu_data),
                 mapping.file(),
                 mapping.name(),
                 mapping.protection(),
                 mapping.kind(),
                 mapping.shared()};
  }
}

bool has_begun_to_use_gpus(pid_t pid) { return has_open_devices(pid); }

}  // namespace icecore::gpu
