// SPDX-License-Identifier: Apache-2.0
#include "pager/record.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "icecore/error.hpp"
#include "image/state_generated.h"
#include "sys/procfs.hpp"

namespace icecore::pager {
namespace {

bool has_sockets(pid_t pid) {
  return std::ranges::any_of(sys::list_descriptors(pid), [&](int number) {
    const auto target = sys::try_read_link(fmt::format("/proc/{}/fd/{}", pid, number));
    return target && target->starts_with("socket:");
  });
}

}  // namespace

Record::Record(const Shared& shared, const Orders& orders, const ImageReader& image,
               const PageStore& store, const sys::PagemapScan* pagemap,
               const sys::OutputMeter* output)
    : shared_(shared),
      head_(shared.head()),
      orders_(orders),
      image_(image),
      store_(store),
      pagemap_(pagemap),
      output_(output) {
  if (!active()) return;
  touched_.resize(image.page_map().stored_pages);
  for (std::uint64_t i = 0; i < head_.recorded; ++i) touched_[shared_.record()[i]] = true;
}

void Record::page_wanted() {
  if (!active()) return;
  if (!began_) began_ = Clock::now();
  if (output_ == nullptr) return;
  const auto written = output_->written_bytes();
  if (!written || *written == head_.written_bytes) return;
  head_.recorded_at_output = head_.recorded.load();
  head_.written_bytes = *written;
  try {
    if (has_sockets(orders_.pid)) head_.record_all = 1;
  } catch (const Error&) {
    head_.record_all = 1;  // it has ended, or cannot be looked at
  }
}

void Record::note(const StoredRange& touched) {
  if (!active()) return;
  for (std::uint64_t page = touched.first_page; page < touched.first_page + touched.pages; ++page) {
    const std::uint64_t used = head_.recorded;
    if (touched_[page] || used == shared_.record().size()) continue;
    touched_[page] = true;
    shared_.record()[used] = page;
    head_.recorded = used + 1;
  }
}

std::optional<Record::Clock::time_point> Record::end() const {
  if (!began_) return std::nullopt;
  return *began_ + orders_.record_for;
}

std::optional<Record::Clock::time_point> Record::next() const {
  if (!began_) return std::nullopt;
  return std::min(*end(), *began_ + next_look_);
}

void Record::look_at_files() {
  next_look_ *= 4;
  if (pagemap_ == nullptr) return;
  try {
    std::vector<sys::PageRange> used;
    for (const state::Mapping& mapping : image_.manifest().process->address_space->mappings) {
      if (mapping.kind() != state::MappingKind::file) continue;
      used.clear();
      pagemap_->used_file_pages(mapping.start(), mapping.end(), used);
      for (const sys::PageRange& range : used)
        file_pages_.push_back({static_cast<std::uint32_t>(mapping.file()),
                               static_cast<std::uint32_t>((range.end - range.start) / kPageSize),
                               (mapping.offset() + range.start - mapping.start()) / kPageSize});
    }
  } catch (const Error&) {
    // It has ended, or does not let itself be looked at; then the disk is read as it goes.
  }
}

void Record::process_ended() {
  ended_ = true;
  if (active()) {
    // Whatever was written since the last page was wanted, that page may have been for it.
    const auto written = output_ != nullptr ? output_->written_bytes() : std::nullopt;
    const bool silent_since = written && *written == head_.written_bytes;
    if (silent_since && head_.recorded_at_output != kNoOutput && head_.record_all == 0)
      head_.recorded = head_.recorded_at_output.load();
  }
  head_.end_seen = 1;
}

/// Those of a working set that is there, in their order, and then ours.
std::vector<std::uint64_t> Record::merged_pages() {
  std::vector<std::uint64_t> pages;
  std::vector<bool> known(image_.page_map().stored_pages);
  const auto add = [&](std::uint64_t page) {
    if (!known[page]) pages.push_back(page);
    known[page] = true;
  };
  try {
    if (const auto before = WorkingSet::open(orders_.working_set, image_)) {
      std::vector<std::pair<std::uint32_t, std::uint64_t>> in_order;
      for (std::size_t i = 0; i < before->pages().size(); ++i)
        in_order.emplace_back(before->order()[i], before->pages()[i]);
      std::ranges::sort(in_order);
      for (const auto& [order, page] : in_order) add(page);
      file_pages_.insert(file_pages_.end(), before->file_pages().begin(),
                         before->file_pages().end());
    }
  } catch (const Error&) {
    // Damaged, or of another image: replaced.
  }
  for (std::uint64_t i = 0; i < head_.recorded; ++i) add(shared_.record()[i]);
  return pages;
}

void Record::finish(const std::function<void(const std::string&)>& tell) {
  try {
    if (head_.recorded > 0) write();
  } catch (const Error& error) {
    tell(fmt::format("the working set is not kept: {}", error.what()));
  }
  head_.record_done = 1;
}

void Record::keep_so_far() {
  // Whoever touches a page meanwhile waits: not for a handful.
  if (head_.recorded - kept_ <= kept_ / 8) return;
  kept_ = head_.recorded;
  try {
    write();
  } catch (const Error&) {
    // finish() will say so.
  }
}

void Record::write() {
  if (!ended_) look_at_files();
  const std::vector<std::uint64_t> pages = merged_pages();
  PageStore::Scratch scratch;
  write_working_set(orders_.working_set, image_, pages, std::exchange(file_pages_, {}),
                    [&](std::uint64_t page) { return store_.read(page, 1, scratch); });
}

}  // namespace icecore::pager
