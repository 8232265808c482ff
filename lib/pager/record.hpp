// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "image/image_reader.hpp"
#include "image/working_set.hpp"
#include "memory/missing_pages.hpp"
#include "memory/page_store.hpp"
#include "pager/shared.hpp"
#include "sys/output_meter.hpp"
#include "sys/pagemap_scan.hpp"

namespace icecore::pager {

/// What a process touches first, in its order, for the next restore to have it ready.
///
/// It begins when the first page is wanted, however long a prepared process was kept waiting, and
/// ends after a time, or with the process.  What a process that ends has touched after its last
/// output is left out: nobody waits for that, and an interpreter that takes itself apart touches
/// all its memory.  Where a process has sockets, through which output leaves uncounted, all is
/// kept.
///
/// Like all that a worker knows it lies in memory that the next worker has too.
class Record {
 public:
  using Clock = std::chrono::steady_clock;

  /// `pagemap`, `output`: of the process; nullptr where they cannot be had.
  Record(const Shared& shared, const Orders& orders, const ImageReader& image,
         const PageStore& store, const sys::PagemapScan* pagemap, const sys::OutputMeter* output);

  bool active() const { return orders_.record && head_.record_done == 0; }

  /// Called at every fault, before note(): has there been output since the last one?
  void page_wanted();

  void note(const StoredRange& touched);

  /// Which pages of mapped files has the process used so far?  Looked at now and then, since its
  /// memory is gone when it has ended.
  void look_at_files();
  bool wants_files(Clock::time_point now) const { return began_ && now - *began_ >= next_look_; }

  /// Nothing: nobody knows, since it has not begun.
  std::optional<Clock::time_point> end() const;
  bool is_over(Clock::time_point now) const { return began_ && now >= *end(); }

  /// When it wants something, though nothing happens.
  std::optional<Clock::time_point> next() const;

  /// The process has ended.  Before it is reaped, if its parent waits for `end_seen`.
  void process_ended();

  /// Writes the working set, adding to one that is there; nothing when nothing was touched.
  /// `tell` hears why that fails.
  void finish(const std::function<void(const std::string&)>& tell);

  /// The same before the end, for a restore that comes sooner: when it is quiet, and there is
  /// something new.
  void keep_so_far();

 private:
  std::vector<std::uint64_t> merged_pages();
  void write();

  const Shared& shared_;
  Head& head_;
  const Orders& orders_;
  const ImageReader& image_;
  const PageStore& store_;
  const sys::PagemapScan* const pagemap_;
  const sys::OutputMeter* const output_;
  std::vector<bool> touched_;  // by stored page
  std::vector<FilePages> file_pages_;
  bool ended_ = false;
  std::uint64_t kept_ = 0;  // of the record, by keep_so_far()
  std::optional<Clock::time_point> began_;
  std::chrono::milliseconds next_look_{20};  // since began_; then ever later
};

}  // namespace icecore::pager
