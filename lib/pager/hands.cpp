// SPDX-License-Identifier: Apache-2.0
#include "pager/hands.hpp"

#include <algorithm>
#include <cerrno>

#include "icecore/error.hpp"
#include "memory/worker.hpp"
#include "sys/cpu.hpp"

namespace icecore::pager {
namespace {

/// To wake a thread, and to wait until it has done, costs as much as ten raw pages: 16 threads that
/// touch pages at once are served in 13 µs a page by one hand and in 20 by two.  To decode a frame
/// takes 50 µs.
constexpr std::size_t kFramesWorthCalling = 2;

/// MADV_GUARD_INSTALL tells us nothing, and a copy would replace the guards: this is asked last.
void cut_before_guards(Piece& piece) {
  StoredRange& range = piece.range;
  if (piece.pagemap == nullptr || (piece.awaited && range.pages == 1)) return;
  try {
    piece.pagemap->guards(range.address, range.end(), piece.guards);
  } catch (const Error& error) {
    if (error.sys_errno() != ESRCH) throw;
    return;  // it has ended, and the copy finds nobody either
  }
  if (piece.guards.empty()) return;
  range.pages = (piece.guards.front().start - range.address) / kPageSize;
  if (piece.awaited) range.pages = std::max<std::uint64_t>(range.pages, 1);
}

void fill_piece(Piece& piece, const PageStore& store, PageStore::Scratch& scratch) noexcept {
  try {
    std::span<const std::byte> bytes;
    const auto [address, first_page, pages] = piece.range;
    try {
      if (piece.awaited && pages == 1) {
        bytes = store.read_awaited(first_page, scratch);
      } else {
        if (piece.awaited) store.read_around(first_page);
        bytes = store.read(first_page, pages, scratch);
      }
    } catch (const Error& error) {
      piece.unreadable = error.what();
      return;
    }
    cut_before_guards(piece);
    if (piece.range.pages > 0)
      piece.result =
          piece.faults->try_copy(piece.range.address, bytes.first(piece.range.pages * kPageSize));
  } catch (...) {
    piece.failure = std::current_exception();
  }
}

}  // namespace

void Hands::fill(std::span<Piece> pieces) {
  pieces_ = pieces;
  next_ = 0;
  const bool together = encoded_ && pieces.size() >= kFramesWorthCalling && !alone_;
  if (together) call_second();
  work(scratch_);
  if (!together) return;
  std::unique_lock lock{mutex_};
  calling_ = false;  // it may not have woken yet, and need not
  done_.wait(lock, [&] { return !working_; });
}

void Hands::call_second() {
  if (!second_.joinable()) {
    alone_ = sys::usable_cpus() < 2;
    if (alone_) return;
    try {
      second_ = start_worker([this](const std::stop_token& stop) { serve(stop); });
    } catch (const Error&) {
      alone_ = true;
      return;
    }
  }
  {
    const std::scoped_lock lock{mutex_};
    calling_ = true;
  }
  called_.notify_one();
}

void Hands::serve(const std::stop_token& stop) {
  std::unique_lock lock{mutex_};
  while (called_.wait(lock, stop, [&] { return calling_; })) {
    calling_ = false;
    working_ = true;
    lock.unlock();
    work(scratch_of_second_);
    lock.lock();
    working_ = false;
    done_.notify_one();
  }
}

void Hands::work(PageStore::Scratch& scratch) {
  for (std::size_t i = next_++; i < pieces_.size(); i = next_++)
    fill_piece(pieces_[i], store_, scratch);
}

}  // namespace icecore::pager
