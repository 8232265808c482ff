// SPDX-License-Identifier: Apache-2.0
#include "guest_area.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "gpu/session.hpp"
#include "guest/area.h"
#include "icecore/error.hpp"
#include "icecore/snapshot.hpp"
#include "image/validate_manifest.hpp"
#include "state/invocation.hpp"
#include "sys/files.hpp"
#include "sys/proc_maps.hpp"
#include "sys/process.hpp"
#include "sys/remote_memory.hpp"

namespace icecore {
namespace {

using Area = ::icecore_area;

bool is_area(const Area& area) {
  return area.magic == ICECORE_AREA_MAGIC && area.version == ICECORE_AREA_VERSION;
}

std::optional<Area> read_area(pid_t pid, std::uint64_t address) {
  Area area{};
  const sys::RemoteMemory memory{pid};
  if (!memory.try_read(address, std::as_writable_bytes(std::span{&area, 1})) || !is_area(area))
    return std::nullopt;
  return area;
}

/// Most have nothing of that size, and cost a look at their mappings.
std::optional<Area> find_area(pid_t pid) {
  for (const sys::Vma& vma : sys::read_maps(pid)) {
    if (vma.size() != ICECORE_AREA_BYTES || !vma.name.empty() || vma.shared) continue;
    if (auto area = read_area(pid, vma.start)) return area;
  }
  return std::nullopt;
}

/// A process may say of its descriptors what it likes.
sys::Fd copy_eventfd(const sys::Fd& process, int number) {
  try {
    sys::Fd copy = sys::copy_descriptor(process, number);
    return sys::is_eventfd(copy) ? std::move(copy) : sys::Fd{};
  } catch (const Error&) {
    return sys::Fd{};
  }
}

}  // namespace

namespace {

/// Of the buffers in GPUs.  A process may say of them what it likes.
std::vector<::icecore_gpu_buffer> read_buffers(pid_t pid, const Area& area) {
  if (area.gpu_buffers == 0 || area.gpu_buffer_count > ICECORE_GPU_MAX_BUFFERS) return {};
  std::vector<::icecore_gpu_buffer> all(area.gpu_buffer_count);
  const sys::RemoteMemory memory{pid};
  if (!memory.try_read(area.gpu_buffers, std::as_writable_bytes(std::span{all}))) return {};
  std::erase_if(all, [](const auto& buffer) { return buffer.address == 0; });
  return all;
}

/// How long its callbacks may take more, for those bytes that have to be copied and digested.
std::chrono::milliseconds time_for_buffers(pid_t pid, const Area& area) {
  constexpr std::uint64_t kBytesPerMillisecond = 500'000;
  std::uint64_t bytes = 0;
  for (const auto& buffer : read_buffers(pid, area))
    bytes += std::min(buffer.size_bytes, std::uint64_t{1} << 40);
  return std::chrono::milliseconds{bytes / kBytesPerMillisecond};
}

std::unique_ptr<state::GpuBufferT> description_of(const ::icecore_gpu_buffer& buffer) {
  auto made = std::make_unique<state::GpuBufferT>();
  made->address = buffer.address;
  made->size = buffer.size_bytes;
  made->contents_size = buffer.contents_bytes;
  made->device = static_cast<std::uint32_t>(buffer.device);
  made->contents = static_cast<state::GpuContents>(buffer.contents);
  if (buffer.carrier != 0) made->contents = state::GpuContents::keep;  // a file's that was changed
  made->carrier = buffer.carrier;
  if (made->contents == state::GpuContents::file) made->file = buffer.file;
  if (made->contents == state::GpuContents::file) made->file_offset = buffer.file_offset;
  made->digest_low = buffer.digest[0];
  made->digest_high = buffer.digest[1];
  return made;
}

}  // namespace

void record_gpu_buffers(pid_t pid, state::ProcessT& process) {
  const auto area = process.gpu ? find_area(pid) : std::nullopt;
  if (!area) return;
  std::vector<state::AddressRange> carriers;
  for (const ::icecore_gpu_buffer& buffer : read_buffers(pid, *area)) {
    // One that came back meanwhile, since somebody waited too long, is the driver's like any other.
    if (buffer.state != ICECORE_GPU_AWAY) continue;
    process.gpu->buffers.push_back(description_of(buffer));
    try {
      validate_gpu_buffer(process, *process.gpu->buffers.back());
    } catch (const Error& error) {
      throw Error{Errc::unsupported,
                  fmt::format("process {} cannot be snapshotted:", pid),
                  {fmt::format("gpu: what libicecore_guest says of its buffers makes no sense: {}",
                               error.what())}};
    }
    if (buffer.carrier != 0)
      carriers.emplace_back(buffer.carrier, buffer.carrier + buffer.contents_bytes);
  }
  gpu::mark_gpu_data(process, carriers);
}

GuestPause::GuestPause(pid_t pid, std::chrono::milliseconds patience, const std::stop_token& stop)
    : pid_(pid) {
  const auto area = find_area(pid);
  if (!area) return;
  // Its callbacks are called once, and its answer is for one.
  lock_ = sys::try_lock_process(pid);
  if (!lock_)
    throw Error{Errc::unsupported,
                fmt::format("process {} cannot be snapshotted:", pid),
                {"another snapshot of it is being taken: try again when that is over"}};
  const sys::Fd process = sys::open_process(pid);
  bell_ = copy_eventfd(process, area->bell);
  const sys::Fd answer = copy_eventfd(process, area->answer);
  if (!bell_ || !answer) {
    bell_ = sys::Fd{};
    end();
    return;
  }
  try {
    sys::take_from_eventfd(answer);  // to somebody who did not wait for it
    sys::add_to_eventfd(bell_, ICECORE_BELL_PREPARE);
    await_answer(process, answer, patience + time_for_buffers(pid, *area), stop);
  } catch (...) {
    withdraw();
    end();
    throw;
  }
}

/// If it has not heard yet that a snapshot is coming, it shall not hear of it when that is over.
void GuestPause::withdraw() noexcept {
  try {
    std::uint64_t rung = sys::take_from_eventfd(bell_);
    if (rung % ICECORE_BELL_GO_ON != 0) rung -= ICECORE_BELL_PREPARE;
    if (rung != 0) sys::add_to_eventfd(bell_, rung);
  } catch (const Error&) {
    // It hears, and goes on when it hears the other.
  }
}

void GuestPause::await_answer(const sys::Fd& process, const sys::Fd& answer,
                              std::chrono::milliseconds patience,
                              const std::stop_token& stop) const {
  constexpr std::chrono::milliseconds kLook{20};
  const auto until = std::chrono::steady_clock::now() + patience;
  while (!sys::wait_readable(answer, kLook)) {
    if (stop.stop_requested()) throw Error{Errc::cancelled, "snapshot: cancelled"};
    if (sys::wait_readable(process, std::chrono::milliseconds{0}))
      throw Error{Errc::target_gone, fmt::format("process {} has ended", pid_)};
    if (std::chrono::steady_clock::now() > until)
      throw Error{
          Errc::unsupported,
          fmt::format("process {} cannot be snapshotted:", pid_),
          {fmt::format("its callbacks before a snapshot did not return within {} ms: let them "
                       "do less, or a runtime wait longer (hook_patience)",
                       patience.count())}};
  }
  if (sys::take_from_eventfd(answer) >= ICECORE_ANSWER_REFUSED)
    throw Error{
        Errc::unsupported,
        fmt::format("process {} cannot be snapshotted:", pid_),
        {"one of its callbacks before a snapshot refuses it: it gave another value than 0, an "
         "exception in Python, or took longer than the program waits"}};
}

void GuestPause::end() noexcept {
  if (bell_) sys::try_add_to_eventfd(bell_, ICECORE_BELL_GO_ON);
  bell_ = sys::Fd{};
  if (lock_) sys::unlock(lock_);
  lock_ = sys::Fd{};
}

void let_guest_go_on(pid_t pid) {
  const auto area = find_area(pid);
  if (!area) return;
  const sys::Fd lock = sys::try_lock_process(pid);
  if (!lock) return;  // whoever snapshots it will
  if (const sys::Fd bell = copy_eventfd(sys::open_process(pid), area->bell))
    sys::try_add_to_eventfd(bell, ICECORE_BELL_GO_ON);
}

void greet_guest(const state::ProcessT& image, pid_t pid, const sys::Fd& process,
                 const Invocation& invocation) {
  for (const state::Mapping& mapping : image.address_space->mappings) {
    if (mapping.kind() != state::MappingKind::anonymous ||
        mapping.end() - mapping.start() != ICECORE_AREA_BYTES)
      continue;
    auto area = read_area(pid, mapping.start());
    if (!area) continue;
    const sys::RemoteMemory memory{pid};
    const std::string text = text_of(invocation);
    ++area->generation;
    sys::fill_random(std::as_writable_bytes(std::span{area->id}));
    area->invocation_bytes = static_cast<std::uint32_t>(text.size());
    memory.write(mapping.start() + ICECORE_AREA_INVOCATION, std::as_bytes(std::span{text}));
    memory.write(mapping.start(), std::as_bytes(std::span{&*area, 1}));
    if (const sys::Fd bell = copy_eventfd(process, area->bell)) {
      sys::take_from_eventfd(bell);  // what was rung for the process that is in the image
      sys::try_add_to_eventfd(bell, ICECORE_BELL_RESTORED);
    }
  }
}

void check_invocation(const Invocation& invocation) {
  if (text_of(invocation).size() >= ICECORE_AREA_INVOCATION_BYTES)
    throw Error{Errc::invalid_argument,
                fmt::format("restore: variables and arguments of the invocation are larger than {} "
                            "bytes",
                            ICECORE_AREA_INVOCATION_BYTES - 1)};
}

}  // namespace icecore
