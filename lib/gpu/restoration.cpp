// SPDX-License-Identifier: Apache-2.0
#include "gpu/restoration.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "icecore/error.hpp"
#include "sys/cgroup.hpp"
#include "sys/process.hpp"

namespace icecore::gpu {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

bool same(const Uuid& a, const Uuid& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

Uuid uuid_of(const state::GpuDeviceT& device) {
  Uuid uuid{};
  std::copy_n(device.uuid.begin(), std::min<std::size_t>(device.uuid.size(), 16), uuid.bytes);
  return uuid;
}

std::string capability_text(std::uint32_t capability) {
  return fmt::format("{}.{}", capability / 10, capability % 10);
}

}  // namespace

std::unique_ptr<Restoration> Restoration::of(const state::ProcessT& image,
                                             const RestoreOptions& options) {
  if (!image.gpu || image.gpu->state_found == state::GpuState::checkpointed) return {};
  return std::unique_ptr<Restoration>{new Restoration{image, options}};
}

Restoration::Restoration(const state::ProcessT& image, const RestoreOptions& options)
    : image_(image), options_(options), driver_({.move = options.gpu_move_patience}) {
  try {
    check();
  } catch (const Error& error) {
    if (error.code() == Errc::cancelled) throw;
    complain("gpu", error.what());
  }
  if (findings_.empty())
    findings_.push_back(
        {.ok = true,
         .subject = fmt::format("gpu ({}; {} MiB to bring back)", here_.devices.front().name,
                                (bytes() + buffer_bytes()) / kMiB),
         .reason = {},
         .remedy = {}});
}

void Restoration::complain(std::string subject, std::string reason, std::string remedy) {
  findings_.push_back({.ok = false,
                       .subject = std::move(subject),
                       .reason = std::move(reason),
                       .remedy = std::move(remedy)});
}

void Restoration::check() {
  const state::GpuT& then = *image_.gpu;
  if (Problem problem = driver_.load(here_); !problem.reason.empty())
    return complain("gpu", problem.reason, problem.remedy);
  if (static_cast<std::uint32_t>(here_.api) < then.driver_api)
    complain("gpu driver",
             fmt::format("is of CUDA {}, the snapshot was taken with one of CUDA {}",
                         version_text(here_.api), version_text(static_cast<int>(then.driver_api))),
             "install the driver of the snapshot");
  if (!then.driver_release.empty() && !here_.release.empty() &&
      then.driver_release != here_.release)
    complain(
        "gpu driver",
        fmt::format("is {}, the snapshot was taken with {}", here_.release, then.driver_release),
        "install the driver of the snapshot");
  check_devices();
  if (findings_.empty()) check_memory();
  check_cgroup();
}

/// The GPU of this machine that takes the place of one of the image; nullptr, with a finding, when
/// there is none.
const DeviceInfo* Restoration::counterpart(const state::GpuDeviceT& device) {
  const std::string old_name = uuid_text(uuid_of(device));
  const auto mapped = std::ranges::find_if(options_.gpu_map, [&](const auto& entry) {
    const auto from = parse_uuid(entry.first);
    return from && same(*from, uuid_of(device));
  });
  Uuid wanted = uuid_of(device);
  if (mapped != options_.gpu_map.end()) {
    const auto to = parse_uuid(mapped->second);
    if (!to) {
      complain("gpu " + old_name, fmt::format("{} is no UUID of a GPU", mapped->second));
      return nullptr;
    }
    wanted = *to;
  }
  const auto found = std::ranges::find_if(
      here_.devices, [&](const DeviceInfo& info) { return same(info.uuid, wanted); });
  if (found != here_.devices.end()) return &*found;
  const auto alike = std::ranges::find_if(
      here_.devices, [&](const DeviceInfo& info) { return device.name == info.name; });
  complain("gpu " + old_name, fmt::format("{} is not here", uuid_text(wanted)),
           alike == here_.devices.end()
               ? "restore on a machine with a " + device.name
               : fmt::format("--gpu-map {}={}", old_name, uuid_text(alike->uuid)));
  return nullptr;
}

void Restoration::check_devices() {
  const auto& devices = image_.gpu->devices;
  for (const auto& [from, to] : options_.gpu_map) {
    const auto old_uuid = parse_uuid(from);
    const bool known = old_uuid && std::ranges::any_of(devices, [&](const auto& device) {
                         return same(uuid_of(*device), *old_uuid);
                       });
    if (!known) complain("gpu " + from, "is none of the snapshot's");
  }
  if (here_.devices.size() < devices.size())
    return complain("gpu", fmt::format("{} here, the snapshot was taken with {}",
                                       here_.devices.size(), devices.size()));
  bool moved = false;
  for (const auto& device : devices) {
    const DeviceInfo* const here = counterpart(*device);
    if (here == nullptr) continue;
    const Uuid old_uuid = uuid_of(*device);
    const std::string subject = "gpu " + uuid_text(old_uuid);
    if (std::ranges::any_of(used_, [&](const Uuid& u) { return same(u, here->uuid); }))
      complain(subject, fmt::format("{} takes the place of two GPUs", uuid_text(here->uuid)));
    used_.push_back(here->uuid);
    if (device->name != here->name)
      complain(subject,
               fmt::format("is a {}, the snapshot was taken on a {}", here->name, device->name));
    else if (device->compute_capability != here->compute_capability)
      complain(subject, fmt::format("has compute capability {}, not {}",
                                    capability_text(here->compute_capability),
                                    capability_text(device->compute_capability)));
    else if (here->total_bytes < device->memory_bytes)
      complain(subject, fmt::format("has {} MiB of memory, not {}", here->total_bytes / kMiB,
                                    device->memory_bytes / kMiB));
    moved = moved || !same(old_uuid, here->uuid);
    pairs_.push_back({old_uuid, here->uuid});
  }
  if (!moved) return pairs_.clear();
  if (here_.api < kPairsVersion)
    complain("gpu driver",
             fmt::format("is of CUDA {}, which cannot bring memory to another GPU",
                         version_text(here_.api)),
             "install driver 580 (CUDA 13.0) or later");
}

/// That the program brings back, with libicecore_guest.
std::uint64_t Restoration::buffer_bytes() const noexcept {
  std::uint64_t total = 0;
  for (const auto& buffer : image_.gpu->buffers) total += buffer->size;
  return total;
}

/// A Restore that runs out of memory cannot be tried again: so it must not.
void Restoration::check_memory() {
  DriverHere now;
  if (Problem problem = driver_.measure(now); !problem.reason.empty())
    return complain("gpu", problem.reason, problem.remedy);
  std::uint64_t free = 0;
  for (const DeviceInfo& device : now.devices)
    if (std::ranges::any_of(used_, [&](const Uuid& u) { return same(u, device.uuid); }))
      free += device.free_bytes;
  const std::uint64_t wanted = bytes() + buffer_bytes() + kDriverOverhead;
  if (free < wanted)
    complain("gpu memory",
             fmt::format("{} MiB are free, {} are needed", free / kMiB, wanted / kMiB),
             "end what else uses the GPU");
  if (!findings_.empty()) findings_.back().transient = true;
}

/// The process's memory is charged to the group in which it is started: ours.
void Restoration::check_cgroup() {
  std::uint64_t wanted = bytes();
  for (const auto& buffer : image_.gpu->buffers)
    if (buffer->contents == state::GpuContents::keep) wanted += buffer->contents_size;
  const auto room = sys::memory_room(sys::current_process());
  if (!room || room->bytes >= wanted) return;
  complain(room->limit,
           fmt::format("leaves {} MiB; the GPU's {} MiB come through memory", room->bytes / kMiB,
                       wanted / kMiB),
           "raise it");
}

void Restoration::run(std::deque<Tracee>& threads, pid_t pid) {
  const state::GpuT& then = *image_.gpu;
  driver_.attach(pid, then.restore_thread, static_cast<ProcessState>(then.state_found), true);
  const ThreadGate gate{find_thread(threads, then.restore_thread)};
  try {
    driver_.restore(gate, pairs_);
    driver_.resume(gate);
    driver_.leave();
  } catch (const Error& error) {
    driver_.leave();  // the process will be killed
    throw Error{Errc::incompatible,
                "the image cannot be restored here:",
                {fmt::format("gpu: {}", error.what())}};
  }
}

}  // namespace icecore::gpu
