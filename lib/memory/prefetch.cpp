// SPDX-License-Identifier: Apache-2.0
#include "memory/prefetch.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <vector>

#include "memory/worker.hpp"

namespace icecore {
namespace {

/// So much of the set is read and held against its digests at once: it stays in the cache until it
/// has been copied.
constexpr std::size_t kPagesAtOnce = 64;

/// A thread takes so many pieces: neighbours share page tables, and the threads a lock on them.
constexpr std::size_t kPiecesAtOnce = 128;

/// Below this many pieces there is nothing to win by a second thread.
constexpr std::size_t kWorthAThread = 256;

/// Neighbouring pages of the set that belong side by side.
struct Piece {
  std::uint64_t address;
  std::size_t first;  // of WorkingSet::pages()
  std::size_t count;
  bool done = false;

  std::size_t end() const { return first + count; }
  std::uint64_t end_address() const { return address + count * kPageSize; }
};

/// Both are in the order of the addresses, so one walk over both is enough.
std::vector<Piece> pieces_of(const WorkingSet& set, const std::vector<StoredRange>& ranges) {
  std::vector<Piece> pieces;
  const auto pages = set.pages();
  std::size_t i = 0;
  for (const StoredRange& range : ranges) {
    const std::uint64_t end_page = range.first_page + range.pages;
    while (i < pages.size() && pages[i] < range.first_page) ++i;
    while (i < pages.size() && pages[i] < end_page) {
      std::size_t count = 1;
      while (count < kPagesAtOnce && i + count < pages.size() && pages[i + count] < end_page &&
             pages[i + count] == pages[i] + count)
        ++count;
      pieces.push_back({range.address + (pages[i] - range.first_page) * kPageSize, i, count});
      i += count;
    }
  }
  return pieces;
}

/// What the threads share.
class Prefetch {
 public:
  Prefetch(const WorkingSet& set, std::vector<Piece> pieces, const sys::Userfaultfd& faults)
      : set_(set), pieces_(std::move(pieces)), faults_(faults) {}

  /// Copies pieces until there are no more.  Keeps the first failure for rethrow_failure().
  void work() noexcept {
    try {
      for (std::size_t i; (i = next_.fetch_add(kPiecesAtOnce)) < pieces_.size();)
        copy(std::span{pieces_}.subspan(i, std::min(kPiecesAtOnce, pieces_.size() - i)));
    } catch (...) {
      const std::lock_guard lock{mutex_};
      if (!failure_) failure_ = std::current_exception();
      next_ = pieces_.size();
    }
  }

  std::span<const Piece> pieces() const { return pieces_; }

  void rethrow_failure() const {
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  void copy(std::span<Piece> pieces) {
    while (!pieces.empty()) {
      const std::size_t first = pieces.front().first;
      const auto beyond = std::ranges::find_if(
          pieces, [&](const Piece& piece) { return piece.end() - first > kPagesAtOnce; });
      const auto together = pieces.first(static_cast<std::size_t>(beyond - pieces.begin()));
      const auto bytes = set_.read(first, together.back().end() - first);
      for (Piece& piece : together) {
        faults_.copy(piece.address,
                     bytes.subspan((piece.first - first) * kPageSize, piece.count * kPageSize));
        piece.done = true;
      }
      pieces = pieces.subspan(together.size());
    }
  }

  const WorkingSet& set_;
  std::vector<Piece> pieces_;
  const sys::Userfaultfd& faults_;
  std::atomic<std::size_t> next_{0};
  std::mutex mutex_;
  std::exception_ptr failure_;
};

}  // namespace

std::uint64_t prefetch(const WorkingSet& set, MissingPages& missing,
                       const sys::Userfaultfd& faults) {
  Prefetch prefetch{set, pieces_of(set, missing.ranges()), faults};
  work_together(prefetch.pieces().size() >= kWorthAThread, [&] { prefetch.work(); });
  std::vector<sys::PageRange> filled;
  std::uint64_t pages = 0;
  for (const Piece& piece : prefetch.pieces()) {
    if (!piece.done) continue;
    filled.push_back({piece.address, piece.end_address()});
    pages += piece.count;
  }
  missing.erase(filled);
  prefetch.rethrow_failure();
  return pages;
}

}  // namespace icecore
