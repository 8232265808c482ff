// SPDX-License-Identifier: Apache-2.0
#include "memory/page_reader.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "icecore/error.hpp"
#include "memory/page_store.hpp"
#include "sys/check.hpp"
#include "sys/files.hpp"

namespace icecore {
namespace {

/// Gives out the selected pages in ascending order, in pieces.
class Pieces {
 public:
  explicit Pieces(const PageSelection& selection) : runs_(selection.runs), lent_(selection.lent) {}

  bool empty() const { return run_ == runs_.size() && next_lent_ == lent_.size(); }
  bool next_is_lent() const {
    if (next_lent_ == lent_.size()) return false;
    return run_ == runs_.size() || lent_[next_lent_].address < runs_[run_].address;
  }

  /// Up to `pages` pages of the process, as far as no lent one lies between them.
  std::vector<PageRun> take(std::uint64_t pages) {
    std::vector<PageRun> taken;
    while (pages > 0 && run_ < runs_.size() && !next_is_lent()) {
      const std::uint64_t count = std::min(pages, runs_[run_].pages - skipped_);
      taken.push_back({runs_[run_].address + skipped_ * kPageSize, count});
      pages -= count;
      skipped_ += count;
      if (skipped_ == runs_[run_].pages) {
        ++run_;
        skipped_ = 0;
      }
    }
    return taken;
  }

  /// Up to `pages` lent ones that are side by side.
  StoredRange take_lent(std::uint64_t pages) {
    StoredRange taken = lent_[next_lent_];
    taken.address += lent_skipped_ * kPageSize;
    taken.first_page += lent_skipped_;
    taken.pages = std::min(pages, taken.pages - lent_skipped_);
    lent_skipped_ += taken.pages;
    if (lent_skipped_ == lent_[next_lent_].pages) {
      ++next_lent_;
      lent_skipped_ = 0;
    }
    return taken;
  }

 private:
  const std::vector<PageRun>& runs_;
  const std::vector<StoredRange>& lent_;
  std::size_t run_ = 0;
  std::size_t next_lent_ = 0;
  std::uint64_t skipped_ = 0;  // pages of runs_[run_]
  std::uint64_t lent_skipped_ = 0;
};

std::uint64_t total_pages(const PageSelection& selection) {
  std::uint64_t pages = 0;
  for (const PageRun& run : selection.runs) pages += run.pages;
  for (const StoredRange& range : selection.lent) pages += range.pages;
  return pages;
}

}  // namespace

void read_pages(const sys::RemoteMemory& memory, const ImageReader* image,
                const PageSelection& selection, PageEncoder& encoder,
                const ProgressCallback& progress, const std::stop_token& stop) {
  const std::uint64_t total_bytes = total_pages(selection) * kPageSize;
  encoder.expect(total_bytes);
  std::uint64_t done_bytes = 0;
  Pieces pieces{selection};
  const auto store = image != nullptr ? std::make_optional<PageStore>(*image) : std::nullopt;
  PageStore::Scratch scratch;
  std::vector<sys::RemoteRange> ranges;
  while (!pieces.empty()) {
    if (stop.stop_requested()) throw Error{Errc::cancelled, "snapshot: cancelled"};
    const std::span<std::byte> buffer = encoder.buffer();
    std::vector<PageRun> batch;
    std::size_t bytes = 0;
    if (pieces.next_is_lent()) {
      ICECORE_CHECK(store.has_value());
      const StoredRange range = pieces.take_lent(PageStore::kMaxPages);
      const auto pages = store->read(range.first_page, range.pages, scratch);
      std::memcpy(buffer.data(), pages.data(), pages.size());
      batch.push_back({range.address, range.pages});
      bytes = pages.size();
    } else {
      batch = pieces.take(encoder.room_bytes() / kPageSize);
      ranges.clear();
      for (const PageRun& part : batch) {
        ranges.push_back({part.address, part.pages * kPageSize});
        bytes += ranges.back().size_bytes;
      }
      memory.read(ranges, buffer.first(bytes));
    }
    encoder.submit(batch);
    done_bytes += bytes;
    if (progress) progress({"pages", done_bytes, total_bytes});
  }
}

void read_file_pages(const sys::Fd& file, std::uint64_t address, std::uint64_t size,
                     PageEncoder& encoder, const std::stop_token& stop) {
  std::uint64_t next = 0;  // a page may hold the end of one range and the start of another
  for (const auto& [start, end] : sys::data_ranges(file, 0, size)) {
    next = std::max(next, start / kPageSize * kPageSize);
    while (next < end) {
      if (stop.stop_requested()) throw Error{Errc::cancelled, "snapshot: cancelled"};
      const std::span<std::byte> buffer = encoder.buffer();
      const PageRun run{address + next, std::min((end - next + kPageSize - 1) / kPageSize,
                                                 std::uint64_t{encoder.room_bytes() / kPageSize})};
      sys::read_all(file, buffer.first(run.pages * kPageSize), next);
      encoder.submit({&run, 1});
      next += run.pages * kPageSize;
    }
  }
}

}  // namespace icecore
