// SPDX-License-Identifier: Apache-2.0
//
// Shared memory of shmget(2).  A segment outlives the process that made it, with its contents.  One
// that nobody else is attached to is taken for the process's own: its contents are in the image,
// and a restore takes the segment that was left behind, or makes it again under the same id.
#include "state/segments.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "icecore/error.hpp"
#include "sys/page.hpp"
#include "sys/shared_memory.hpp"

namespace icecore {
namespace {

constexpr std::string_view kSegmentName = "/SYSV";

/// As it was when the segment was made.
int key_in(const sys::Vma& vma) {
  return static_cast<int>(std::strtoul(vma.name.c_str() + kSegmentName.size(), nullptr, 16));
}

bool is_left_behind(const state::SegmentT& segment, const sys::SegmentStatus& status) {
  return !segment.removed && !status.removed && status.attachments == 0 &&
         status.key == segment.key && status.size_bytes == segment.size &&
         status.owner == segment.owner;
}

}  // namespace

bool SegmentCapture::is_one(const sys::Vma& vma) {
  return vma.shared && vma.name.starts_with(kSegmentName);
}

bool SegmentCapture::add(const sys::Vma& vma, std::uint64_t object, Refusals& refusals) {
  const auto id = static_cast<int>(vma.inode);
  const auto refuse = [&](const char* why) {
    refusals.add("mapping {:#x}-{:#x}: SysV shared memory {}: {}: cannot be snapshotted yet",
                 vma.start, vma.end, id, why);
    return false;
  };
  if (!vma.has_flag("mw")) return refuse("attached for reading only (SHM_RDONLY)");
  const auto known = std::ranges::find_if(
      found_, [&](const Found& found) { return found.segment->object == object; });
  if (known != found_.end()) return ++known->attachments, true;
  const auto status = sys::segment_status(id);
  if (!status) return refuse("is of another IPC namespace");
  Found found{.segment = std::make_unique<state::SegmentT>(),
              .attachments = 1,
              .of_all = status->attachments};
  found.segment->object = static_cast<std::uint32_t>(object);
  found.segment->id = id;
  found.segment->key = status->removed ? key_in(vma) : status->key;
  found.segment->mode = status->mode;
  found.segment->size = status->size_bytes;
  found.segment->owner = status->owner;
  found.segment->group = status->group;
  found.segment->removed = status->removed;
  found_.push_back(std::move(found));
  return true;
}

std::vector<std::unique_ptr<state::SegmentT>> SegmentCapture::take(
    const std::vector<state::SharedObject>& objects, Refusals& refusals) {
  std::vector<std::unique_ptr<state::SegmentT>> segments;
  for (Found& found : found_) {
    state::SegmentT& segment = *found.segment;
    if (found.of_all != found.attachments)
      refusals.add(
          "SysV shared memory {}: others are attached to it ({} times): cannot be kept; snapshot "
          "the process when it is alone",
          segment.id, found.of_all - found.attachments);
    else if (objects[segment.object].size() != up_to_page(segment.size))
      refusals.add("SysV shared memory {}: its end is not mapped: cannot be snapshotted yet",
                   segment.id);
    else
      segments.push_back(std::move(found.segment));
  }
  return segments;
}

SegmentRebuild::SegmentRebuild(const state::AddressSpaceT& image)
    : image_(image), ids_(image.shared_objects.size(), -1) {
  for (const auto& segment : image.segments) {
    int& id = ids_[segment->object];
    const auto status = sys::segment_status(segment->id);
    if (status && is_left_behind(*segment, *status)) {
      id = segment->id;
      continue;
    }
    // A removed one has no key any more; that it had one shows only in its name.
    const bool taken = segment->removed && segment->key != 0 && sys::find_segment(segment->key);
    const int key = taken ? 0 : segment->key;
    id = made_.emplace_back(sys::make_segment(key, segment->size, segment->id));
    if (id != segment->id && !segment->removed)
      throw Error{Errc::incompatible,
                  fmt::format("SysV shared memory: the id {} is taken here", segment->id)};
  }
}

SegmentRebuild::~SegmentRebuild() {
  for (const int id : made_) sys::remove_segment(id);
}

void SegmentRebuild::settle() {
  for (const auto& segment : image_.segments) {
    const int id = ids_[segment->object];
    sys::set_segment(id, {.mode = segment->mode, .owner = segment->owner, .group = segment->group});
    if (segment->removed) sys::remove_segment(id);
  }
  made_.clear();
}

void check_segments(const state::AddressSpaceT& image, Refusals& refusals) {
  for (const auto& segment : image.segments) {
    if (segment->removed) continue;
    if (const auto status = sys::segment_status(segment->id)) {
      if (!is_left_behind(*segment, *status))
        refusals.add_transient(
            "SysV shared memory {}: there is one here that others use: end the processes that do, "
            "or remove it with ipcrm -m {}",
            segment->id, segment->id);
      continue;
    }
    if (const auto other = segment->key == 0 ? std::nullopt : sys::find_segment(segment->key))
      refusals.add("SysV shared memory {}: segment {} has its key {:#x} here: ipcrm -m {}",
                   segment->id, *other, static_cast<unsigned>(segment->key), *other);
    if (!sys::can_choose_segment_ids())
      refusals.add(
          "SysV shared memory {}: its id cannot be chosen here: /proc/sys/kernel/shm_next_id "
          "(CONFIG_CHECKPOINT_RESTORE) is needed",
          segment->id);
  }
}

}  // namespace icecore
