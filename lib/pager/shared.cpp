// SPDX-License-Identifier: Apache-2.0
#include "pager/shared.hpp"

#include <fmt/format.h>
#include <icecore/version.h>

#include <algorithm>
#include <cstring>

#include "icecore/error.hpp"
#include "sys/files.hpp"

namespace icecore::pager {
namespace {

// Sparse: only what is used takes memory.
constexpr std::uint64_t kJournalEntries = std::uint64_t{1} << 20;

std::array<char, 16> build_version() {
  std::array<char, 16> version{};
  const std::string text = fmt::format("{} {}", ICECORE_VERSION, sizeof(Head));
  std::copy_n(text.begin(), std::min(text.size(), version.size()), version.begin());
  return version;
}

std::uint64_t stored_pages(const Orders& orders) {
  std::uint64_t pages = 0;
  for (const StoredRange& range : orders.ranges) pages += range.pages;
  return pages;
}

}  // namespace

Shared::Shared(const Orders& orders) : file_(sys::make_memory_file("icecore-pager")) {
  std::uint64_t end = (sizeof(Head) + 63) / 64 * 64;
  const auto place = [&](std::uint64_t bytes) {
    const std::uint64_t at = end;
    end = (end + bytes + 63) / 64 * 64;
    return at;
  };
  const std::uint64_t ranges = place(orders.ranges.size() * sizeof(StoredRange));
  const std::uint64_t path = place(orders.working_set.size());
  const std::uint64_t record_entries = orders.record ? stored_pages(orders) : 0;
  const std::uint64_t record = place(record_entries * sizeof(std::uint64_t));
  const std::uint64_t journal = place(kJournalEntries * sizeof(JournalEntry));
  sys::resize_file(file_, end);
  mapping_ = sys::Mapping::shared(file_, end);

  Head& head = *new (mapping_.data()) Head{};
  head.version = build_version();
  head.total_bytes = end;
  head.ranges_offset = ranges;
  head.ranges = orders.ranges.size();
  head.path_offset = path;
  head.path_bytes = orders.working_set.size();
  head.journal_offset = journal;
  head.journal_entries = kJournalEntries;
  head.record_offset = record;
  head.record_entries = record_entries;
  head.record_for_ms = orders.record_for.count();
  head.pid = orders.pid;
  head.filling = static_cast<std::uint32_t>(orders.filling);
  head.record = orders.record ? 1 : 0;
  head.waits = orders.waits ? 1 : 0;
  head.recorded_at_output = kNoOutput;
  head.missing_pages = stored_pages(orders);
  if (!orders.ranges.empty())  // the working set may be all there is
    std::memcpy(mapping_.data() + ranges, orders.ranges.data(),
                orders.ranges.size() * sizeof(StoredRange));
  std::memcpy(mapping_.data() + path, orders.working_set.data(), orders.working_set.size());
}

Shared::Shared(sys::Fd file) : file_(std::move(file)) {
  const auto size = static_cast<std::size_t>(sys::status(file_).st_size);
  if (size < sizeof(Head)) throw Error{Errc::internal, "the orders are too short"};
  mapping_ = sys::Mapping::shared(file_, size);
  if (head().version != build_version() || head().total_bytes != size)
    throw Error{Errc::incompatible, "icecore and its pager are of different builds: install both"};
}

Orders Shared::orders() const {
  const Head& head = this->head();
  Orders orders;
  orders.ranges.resize(head.ranges);
  if (!orders.ranges.empty())
    std::memcpy(orders.ranges.data(), mapping_.data() + head.ranges_offset,
                head.ranges * sizeof(StoredRange));
  orders.filling = static_cast<Filling>(head.filling);
  orders.record = head.record != 0;
  orders.record_for = std::chrono::milliseconds{head.record_for_ms};
  orders.working_set.assign(reinterpret_cast<const char*>(mapping_.data() + head.path_offset),
                            head.path_bytes);
  orders.pid = head.pid;
  return orders;
}

std::span<JournalEntry> Shared::journal() const noexcept {
  return {reinterpret_cast<JournalEntry*>(mapping_.data() + head().journal_offset),
          head().journal_entries};
}

std::span<std::uint64_t> Shared::record() const noexcept {
  return {reinterpret_cast<std::uint64_t*>(mapping_.data() + head().record_offset),
          head().record_entries};
}

}  // namespace icecore::pager
