// SPDX-License-Identifier: Apache-2.0
#include "memory/prefetch.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "sys/cpu.hpp"
#include "sys/process.hpp"

namespace icecore {
namespace {

constexpr std::size_t kPagesAtOnce = 64;
constexpr std::size_t kWorthAThread = 256;  // pieces

/// Neighbouring pages of the set that belong side by side.
struct Piece {
  std::uint64_t address;
  std::size_t first;  // of WorkingSet::pages()
  std::size_t count;
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

}  // namespace

std::uint64_t prefetch(const WorkingSet& set, MissingPages& missing,
                       const sys::Userfaultfd& faults) {
  const std::vector<Piece> pieces = pieces_of(set, missing.ranges());
  std::vector<char> done(pieces.size());
  std::atomic<std::size_t> next{0};
  std::exception_ptr failure;
  std::mutex mutex;
  const auto work = [&]() noexcept {
    try {
      // Some at a time: neighbours share page tables, and the threads a lock on them.
      constexpr std::size_t kAtOnce = 32;
      for (std::size_t i; (i = next.fetch_add(kAtOnce)) < pieces.size();)
        for (std::size_t end = std::min(i + kAtOnce, pieces.size()); i < end; ++i) {
          faults.copy(pieces[i].address, set.read(pieces[i].first, pieces[i].count));
          done[i] = 1;
        }
    } catch (...) {
      const std::lock_guard lock{mutex};
      failure = std::current_exception();
      next = pieces.size();
    }
  };
  if (pieces.size() >= kWorthAThread && sys::usable_cpus() > 1) {
    const sys::SignalsBlocked blocked;  // threads begin with their maker's mask
    std::jthread second{work};
    work();
  } else {
    work();
  }
  std::uint64_t filled = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (done[i] == 0) continue;
    missing.erase(pieces[i].address, pieces[i].address + pieces[i].count * kPageSize);
    filled += pieces[i].count;
  }
  if (failure) std::rethrow_exception(failure);
  return filled;
}

}  // namespace icecore
