// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the library and the pager's processes share: a file in memory.  The library writes the
// orders before it passes the file on; everything else belongs to the pager, and outlives any one
// of its processes.

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "memory/missing_pages.hpp"
#include "sys/fd.hpp"
#include "sys/mapping.hpp"
#include "sys/userfaultfd.hpp"

namespace icecore::pager {

enum class Filling : std::uint32_t { idle, now, never };

/// What the library wants.
struct Orders {
  std::vector<StoredRange> ranges;  ///< registered, by address
  Filling filling = Filling::idle;
  bool waits = false;  ///< as Head::waits
  bool record = false;
  std::chrono::milliseconds record_for{};
  std::string working_set;  ///< path to write what was recorded; empty: nowhere
  pid_t pid = 0;            ///< of the process, as seen by the pager
};

/// Logarithmic: bucket i counts faults that took less than 2^i ns to answer, and not less than
/// half.
inline constexpr std::size_t kLatencyBuckets = 40;

/// A message of the kernel that changed an address space, in the order in which they were read.
struct JournalEntry {
  std::uint32_t space;
  std::uint32_t reserved;
  sys::PageMessage message;
};

inline constexpr std::size_t kMessagesAtOnce = 16;

/// As Head::recorded_at_output.
inline constexpr std::uint64_t kNoOutput = ~std::uint64_t{0};

struct Head {
  std::array<char, 16> version;  ///< both sides must be of one build
  std::uint64_t total_bytes;
  std::uint64_t ranges_offset, ranges;
  std::uint64_t path_offset, path_bytes;
  std::uint64_t journal_offset, journal_entries;
  std::uint64_t record_offset, record_entries;
  std::int64_t record_for_ms;
  std::int32_t pid;
  std::uint32_t filling;
  std::uint32_t record;

  /// Of the library: the process is prepared and does not run yet.  It may never, and costs no more
  /// than it has: when faults are quiet, nothing is filled in.
  std::atomic<std::uint32_t> waits;

  // Of the worker, for whoever follows it.
  std::atomic<std::uint64_t> journal_used;
  std::atomic<std::uint64_t> recorded;            ///< pages in the record
  std::atomic<std::uint64_t> written_bytes;       ///< by the process, when that was last looked at
  std::atomic<std::uint64_t> recorded_at_output;  ///< `recorded` at its last output, or kNoOutput
  std::atomic<std::uint32_t> record_all;          ///< also what comes after its last output
  std::atomic<std::int32_t> borrower;        ///< descriptor of a snapshot's connection, 0: none
  std::atomic<std::uint32_t> record_done;    ///< the working set has been written, or cannot be
  std::atomic<std::uint32_t> end_seen;       ///< the process has ended, and may be reaped
  std::atomic<std::uint32_t> pending_space;  ///< that the messages below came from
  /// Read from the kernel straight into here; zeroed one by one as they have been dealt with.
  std::array<sys::PageMessage, kMessagesAtOnce> pending;

  // For whoever looks.
  std::atomic<std::uint64_t> faults, zero_faults, fault_pages, fill_pages, poisoned_pages;
  std::atomic<std::uint64_t> missing_pages;  ///< still to come, in all address spaces
  std::atomic<std::uint64_t> spaces, restarts, complete;
  std::array<std::atomic<std::uint64_t>, kLatencyBuckets> latency;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

class Shared {
 public:
  /// The library's side: a new file with these orders.
  explicit Shared(const Orders& orders);

  /// The pager's side.  Throws Errc::incompatible when it is of another build.
  explicit Shared(sys::Fd file);

  const sys::Fd& file() const noexcept { return file_; }
  Head& head() const noexcept { return *reinterpret_cast<Head*>(mapping_.data()); }

  Orders orders() const;
  std::span<JournalEntry> journal() const noexcept;
  std::span<std::uint64_t> record() const noexcept;

 private:
  sys::Fd file_;
  sys::Mapping mapping_;
};

}  // namespace icecore::pager
