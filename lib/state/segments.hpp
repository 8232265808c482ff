// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "image/state_generated.h"
#include "state/refusals.hpp"
#include "sys/proc_maps.hpp"

namespace icecore {

/// The segments of shmget(2) among the mappings of a process.
class SegmentCapture {
 public:
  /// True for a mapping of one.
  static bool is_one(const sys::Vma& vma);

  /// Notes an attachment, which is shared object `object` of the image.  Adds to the refusals, and
  /// returns false, when it cannot be kept.
  bool add(const sys::Vma& vma, std::uint64_t object, Refusals& refusals);

  /// Once all have been added: refuses what others share.
  std::vector<std::unique_ptr<state::SegmentT>> take(
      const std::vector<state::SharedObject>& objects, Refusals& refusals);

 private:
  struct Found {
    std::unique_ptr<state::SegmentT> segment;
    std::uint64_t attachments = 0;  // by the process
    std::uint64_t of_all = 0;
  };
  std::vector<Found> found_;
};

/// Makes the segments of an image, or finds those that the process has left behind.  What it has
/// made goes again when it is destroyed, until settle().
class SegmentRebuild {
 public:
  explicit SegmentRebuild(const state::AddressSpaceT& image);
  SegmentRebuild(const SegmentRebuild&) = delete;
  SegmentRebuild& operator=(const SegmentRebuild&) = delete;
  ~SegmentRebuild();

  /// By shared object; -1 where it is no segment.
  const std::vector<int>& ids() const noexcept { return ids_; }

  /// The process has attached them.
  void settle();

 private:
  const state::AddressSpaceT& image_;
  std::vector<int> ids_;
  std::vector<int> made_;
};

/// Adds what is in the way of a segment.
void check_segments(const state::AddressSpaceT& image, Refusals& refusals);

}  // namespace icecore
