// SPDX-License-Identifier: Apache-2.0
#include "state/contents.hpp"

#include <algorithm>
#include <set>

#include "image/mapping.hpp"
#include "sys/check.hpp"
#include "sys/page.hpp"

namespace icecore {

using state::MappingFlag;
using state::MappingKind;

namespace {

/// Stored pages within one mapping.
struct MappedPages {
  const state::Mapping* mapping;
  std::uint64_t pages = 0;
  std::vector<StoredRange> ranges = {};
};

std::vector<MappedPages> pages_by_mapping(const state::ProcessT& image,
                                          std::span<const PageRun> runs) {
  std::vector<MappedPages> result;
  const auto& mappings = image.address_space->mappings;
  auto mapping = mappings.begin();
  std::uint64_t first_page = 0;
  for (const PageRun& run : runs) {
    if (run.address >= kFilePagesStart) break;
    std::uint64_t address = run.address;
    while (address < run.end()) {
      while (mapping->end() <= address) {
        ++mapping;
        ICECORE_CHECK(mapping != mappings.end());
      }
      if (result.empty() || result.back().mapping != &*mapping) result.push_back({&*mapping});
      const std::uint64_t pages = (std::min(run.end(), mapping->end()) - address) / kPageSize;
      result.back().ranges.push_back({address, first_page, pages});
      result.back().pages += pages;
      first_page += pages;
      address += pages * kPageSize;
    }
  }
  return result;
}

/// Below this many pages of a mapping, registering it costs more than writing them.
constexpr std::uint64_t kWorthRegistering = 16;

/// userfaultfd serves neither file pages nor memory that must not fault; a stack is small, grows,
/// and is needed at once; what was in GPUs is wanted whole before the process runs.
bool can_be_lazy(const MappedPages& pages) {
  const state::Mapping& mapping = *pages.mapping;
  return mapping.kind() == MappingKind::anonymous && pages.pages >= kWorthRegistering &&
         takes_small_pages(mapping) && !has(mapping, MappingFlag::locked) &&
         !has(mapping, MappingFlag::gpu_data) && !has(mapping, MappingFlag::grows_down);
}

/// Below this gap between stored pages both sides are registered at once; larger ones are left
/// alone, since fresh memory must not fault to us.
constexpr std::uint64_t kLargestGap = std::uint64_t{2} << 20;

}  // namespace

std::vector<StoredRange> lazy_ranges(const state::ProcessT& image, std::span<const PageRun> runs) {
  std::vector<StoredRange> lazy;
  for (const MappedPages& pages : pages_by_mapping(image, runs))
    if (can_be_lazy(pages)) lazy.insert(lazy.end(), pages.ranges.begin(), pages.ranges.end());
  return lazy;
}

std::vector<FileToRead> files_to_read(const state::ProcessT& image, const PageStore& store,
                                      bool lazy, std::span<const FilePages> used) {
  std::vector<FileToRead> files(1 + image.files.size());
  for (const MappedPages& pages : pages_by_mapping(image, store.runs())) {
    const state::Mapping& mapping = *pages.mapping;
    if (lazy && can_be_lazy(pages)) continue;
    for (const StoredRange& range : pages.ranges) {
      files[0].ranges.push_back(store.place_of(range.first_page, range.pages));
      if (mapping.kind() == MappingKind::file)
        files[1 + static_cast<std::size_t>(mapping.file())].ranges.push_back(
            {mapping.offset() + (range.address - mapping.start()), range.pages * kPageSize});
    }
  }
  std::uint64_t first_page = 0;
  for (const PageRun& run : store.runs()) {
    if (run.address >= kFilePagesStart)
      files[0].ranges.push_back(store.place_of(first_page, run.pages));
    first_page += run.pages;
  }
  for (const FilePages& run : used)
    files[1 + run.file].ranges.push_back({run.first_page * kPageSize, run.pages * kPageSize});
  for (std::size_t i = 0; i < files.size(); ++i) {
    files[i].ranges = joined(std::move(files[i].ranges));
    if (i > 0) files[i].path = image.files[i - 1]->path;
  }
  std::erase_if(files, [](const FileToRead& file) { return file.ranges.empty(); });
  return files;
}

std::vector<sys::PageRange> ranges_to_register(const state::ProcessT& image,
                                               std::span<const PageRun> runs) {
  std::vector<sys::PageRange> registered;
  for (const MappedPages& pages : pages_by_mapping(image, runs)) {
    if (!can_be_lazy(pages)) continue;
    registered.push_back({pages.ranges.front().address, pages.ranges.front().address});
    for (const StoredRange& range : pages.ranges) {
      if (range.address - registered.back().end >= kLargestGap)
        registered.push_back({range.address, range.address});
      registered.back().end = range.end();
    }
  }
  return registered;
}

std::vector<sys::PageRange> places_of(const state::AddressSpaceT& image,
                                      std::span<const FilePages> used) {
  std::vector<sys::PageRange> places;
  for (const state::Mapping& mapping : image.mappings) {
    if (mapping.kind() != MappingKind::file) continue;
    const auto file = static_cast<std::uint32_t>(mapping.file());
    const std::uint64_t first = mapping.offset() / kPageSize;
    const std::uint64_t end = first + (mapping.end() - mapping.start()) / kPageSize;
    auto run = std::ranges::partition_point(used, [&](const FilePages& r) {
      return r.file < file || (r.file == file && r.first_page + r.pages <= first);
    });
    for (; run != used.end() && run->file == file && run->first_page < end; ++run) {
      const std::uint64_t from = std::max(run->first_page, first);
      const std::uint64_t to = std::min(run->first_page + run->pages, end);
      places.push_back({mapping.start() + (from - first) * kPageSize,
                        mapping.start() + (to - first) * kPageSize});
    }
  }
  return places;
}

namespace {

/// Where it is filled: shared objects as a whole, since they have several mappings.
struct FillPlace {
  sys::PageRange whole;
  std::uint64_t first;  ///< address there of the first page of the mapping
};

FillPlace fill_place(const state::ProcessT& image, const state::Mapping& mapping,
                     const Workplace& work) {
  if (mapping.kind() != MappingKind::shared_anonymous)
    return {{mapping.start(), mapping.end()}, mapping.start()};
  const std::uint64_t start = work.shared_objects[mapping.object()];
  const std::uint64_t size = image.address_space->shared_objects[mapping.object()].size();
  return {{start, start + up_to_page(size)}, start + mapping.offset()};
}

/// Fresh memory of small pages, and enough of it.
bool worth_registering(const MappedPages& pages) {
  const state::Mapping& mapping = *pages.mapping;
  if (pages.pages < kWorthRegistering || !takes_small_pages(mapping)) return false;
  return mapping.kind() == MappingKind::shared_anonymous ||
         (mapping.kind() == MappingKind::anonymous && !has(mapping, MappingFlag::huge_pages));
}

}  // namespace

FillPlan plan_fill(const state::ProcessT& image, const PageStore& store, const Workplace& work,
                   bool lazy) {
  const std::vector<MappedPages> all = pages_by_mapping(image, store.runs());
  FillPlan plan;
  std::set<std::uint64_t> registered;
  for (const MappedPages& pages : all) {
    const state::Mapping& mapping = *pages.mapping;
    if (mapping.kind() == MappingKind::vdso || (lazy && can_be_lazy(pages))) continue;
    const FillPlace place = fill_place(image, mapping, work);
    if (worth_registering(pages) && registered.insert(place.whole.start).second)
      plan.registered.push_back(place.whole);
  }
  for (const MappedPages& pages : all) {
    const state::Mapping& mapping = *pages.mapping;
    if (mapping.kind() == MappingKind::vdso || (lazy && can_be_lazy(pages))) continue;
    const FillPlace place = fill_place(image, mapping, work);
    const auto how =
        registered.contains(place.whole.start) ? FillRange::How::missing : FillRange::How::write;
    for (const StoredRange& range : pages.ranges)
      plan.ranges.push_back({.first_page = range.first_page,
                             .pages = range.pages,
                             .address = place.first + (range.address - mapping.start()),
                             .how = how});
  }
  return plan;
}

}  // namespace icecore
