// SPDX-License-Identifier: Apache-2.0
//
// Two threads take pieces of at most 256 KiB: digest first, then copy, while the bytes are still in
// the cache.  A fresh page costs 0.9 µs, most of it the kernel's bookkeeping, so a second thread
// nearly doubles the rate; the digest adds 0.35 µs.
#include "memory/page_filler.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

#include "icecore/error.hpp"
#include "memory/worker.hpp"

namespace icecore {
namespace {

std::vector<FillRange> cut(const std::vector<FillRange>& ranges) {
  std::vector<FillRange> pieces;
  for (FillRange range : ranges) {
    while (range.pages > 0) {
      FillRange piece = range;
      piece.pages = std::min(range.pages, PageStore::kMaxPages);
      pieces.push_back(piece);
      range.first_page += piece.pages;
      range.pages -= piece.pages;
      range.address += piece.pages * kPageSize;
    }
  }
  return pieces;
}

/// What the threads share.
class Filling {
 public:
  Filling(const PageStore& store, std::vector<FillRange> pieces, const sys::RemoteMemory& memory,
          const sys::Userfaultfd* missing, const ProgressCallback& progress,
          const std::stop_token& stop)
      : store_(store),
        pieces_(std::move(pieces)),
        memory_(memory),
        missing_(missing),
        progress_(progress),
        stop_(stop) {
    for (const FillRange& piece : pieces_) total_bytes_ += piece.pages * kPageSize;
  }

  /// Fills pieces until there are no more.  Keeps the first failure for finish().
  void work() noexcept {
    try {
      PageStore::Scratch scratch;
      // A few pieces at a time: neighbours share page tables, and the threads a lock on them.
      constexpr std::size_t kAtOnce = 8;
      for (std::size_t i; (i = next_.fetch_add(kAtOnce)) < pieces_.size();)
        for (std::size_t end = std::min(i + kAtOnce, pieces_.size()); i < end; ++i)
          fill(pieces_[i], scratch);
    } catch (...) {
      const std::lock_guard lock{mutex_};
      if (!failure_) failure_ = std::current_exception();
      next_ = pieces_.size();
    }
  }

  std::uint64_t finish() {
    if (failure_) std::rethrow_exception(failure_);
    return total_bytes_;
  }

  std::size_t pieces() const { return pieces_.size(); }

 private:
  void fill(const FillRange& piece, PageStore::Scratch& scratch) {
    if (stop_.stop_requested()) throw Error{Errc::cancelled, "restore: cancelled"};
    const std::span<const std::byte> bytes = store_.read(piece.first_page, piece.pages, scratch);
    if (piece.how == FillRange::How::missing)
      missing_->copy(piece.address, bytes);
    else
      memory_.write(piece.address, bytes);
    const std::uint64_t done = done_bytes_ += bytes.size();
    if (!progress_) return;
    const std::lock_guard lock{mutex_};
    progress_({"fill", done, total_bytes_});
  }

  const PageStore& store_;
  const std::vector<FillRange> pieces_;
  const sys::RemoteMemory& memory_;
  const sys::Userfaultfd* missing_;
  const ProgressCallback& progress_;
  const std::stop_token& stop_;
  std::uint64_t total_bytes_ = 0;
  std::atomic<std::size_t> next_{0};
  std::atomic<std::uint64_t> done_bytes_{0};
  std::mutex mutex_;
  std::exception_ptr failure_;
};

}  // namespace

std::uint64_t fill_pages(const PageStore& store, const std::vector<FillRange>& ranges,
                         const sys::RemoteMemory& memory, const sys::Userfaultfd* missing,
                         const ProgressCallback& progress, const std::stop_token& stop) {
  Filling filling{store, cut(ranges), memory, missing, progress, stop};
  constexpr std::size_t kWorthAThread = 64;
  work_together(filling.pieces() >= kWorthAThread, [&] { filling.work(); });
  return filling.finish();
}

}  // namespace icecore
