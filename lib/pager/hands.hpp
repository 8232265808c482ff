// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "memory/missing_pages.hpp"
#include "memory/page_store.hpp"
#include "sys/pagemap_scan.hpp"
#include "sys/userfaultfd.hpp"

namespace icecore::pager {

/// Missing pages that are to be filled, and what has become of it.
struct Piece {
  const sys::Userfaultfd* faults;
  const sys::PagemapScan* pagemap;  ///< null: guards are not looked for
  StoredRange range;                ///< cut before the first guard
  bool awaited;                     ///< somebody has touched the first page: no guard was there

  std::vector<sys::PageRange> guards;  ///< that lie in what `range` was
  std::optional<std::string> unreadable;
  sys::FillResult result;  ///< of the copy, where there was one
  std::exception_ptr failure;
};

/// Fills pieces, with a second thread where several frames are to be decoded at once: whoever waits
/// for them leaves a CPU to us.
class Hands {
 public:
  explicit Hands(const PageStore& store)
      : store_(store), encoded_(store.encoding() == Encoding::zstd) {}
  Hands(const Hands&) = delete;

  /// All of them, which do not overlap.  Throws nothing: see Piece.
  void fill(std::span<Piece> pieces);

 private:
  void call_second();
  void serve(const std::stop_token& stop);
  void work(PageStore::Scratch& scratch);

  const PageStore& store_;
  const bool encoded_;
  PageStore::Scratch scratch_, scratch_of_second_;
  std::span<Piece> pieces_;
  std::atomic<std::size_t> next_ = 0;
  bool alone_ = false;  // there is no second CPU, or no thread to be had

  std::mutex mutex_;
  std::condition_variable_any called_, done_;
  bool calling_ = false, working_ = false;  // the second
  std::jthread second_;                     // ends before what it uses
};

}  // namespace icecore::pager
