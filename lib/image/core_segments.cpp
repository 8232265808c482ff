// SPDX-License-Identifier: Apache-2.0
#include "image/core_segments.hpp"

#include <sys/mman.h>

#include <algorithm>

#include "image/state_generated.h"

namespace icecore {
namespace {

Elf64_Word segment_flags(std::uint32_t protection) {
  return ((protection & PROT_READ) != 0 ? PF_R : 0u) |
         ((protection & PROT_WRITE) != 0 ? PF_W : 0u) | ((protection & PROT_EXEC) != 0 ? PF_X : 0u);
}

/// Walks mappings and stored runs side by side, both ascending.
class SegmentBuilder {
 public:
  SegmentBuilder(const state::AddressSpaceT& space, const PageMap& map)
      : map_(map), run_(map.runs.begin()), mapped_times_(space.shared_objects.size()) {
    for (const state::Mapping& mapping : space.mappings)
      if (mapping.kind() == state::MappingKind::shared_anonymous) ++mapped_times_[mapping.object()];
  }

  void add(const state::Mapping& mapping) {
    std::uint64_t address = mapping.start();
    while (address < mapping.end()) {
      skip_runs_before(address);
      if (run_ == map_.runs.end() || run_->address >= mapping.end()) break;
      const std::uint64_t start = std::max(address, run_->address);
      const std::uint64_t end = std::min(mapping.end(), run_->end());
      add_zero(mapping, address, start);
      add_stored(mapping, start, end);
      address = end;
    }
    add_zero(mapping, address, mapping.end());
  }

  std::vector<Elf64_Phdr> take() { return std::move(segments_); }

 private:
  void skip_runs_before(std::uint64_t address) {
    for (; run_ != map_.runs.end() && run_->end() <= address; ++run_) pages_before_ += run_->pages;
  }

  void add_stored(const state::Mapping& mapping, std::uint64_t start, std::uint64_t end) {
    const std::uint64_t in_data = pages_before_ * kPageSize + (start - run_->address);
    segments_.push_back({.p_type = PT_LOAD,
                         .p_flags = segment_flags(mapping.protection()),
                         .p_offset = map_.data_offset + in_data,
                         .p_vaddr = start,
                         .p_paddr = 0,
                         .p_filesz = end - start,
                         .p_memsz = end - start,
                         .p_align = kPageSize});
  }

  void add_zero(const state::Mapping& mapping, std::uint64_t start, std::uint64_t end) {
    if (start == end || !is_zero_where_not_stored(mapping)) return;
    segments_.push_back({.p_type = PT_LOAD,
                         .p_flags = segment_flags(mapping.protection()),
                         .p_offset = map_.data_offset,
                         .p_vaddr = start,
                         .p_paddr = 0,
                         .p_filesz = 0,
                         .p_memsz = end - start,
                         .p_align = kPageSize});
  }

  // Pages of shared memory that is mapped more than once are stored with one of its mappings only.
  bool is_zero_where_not_stored(const state::Mapping& mapping) const {
    return mapping.kind() == state::MappingKind::anonymous ||
           (mapping.kind() == state::MappingKind::shared_anonymous &&
            mapped_times_[mapping.object()] == 1);
  }

  const PageMap& map_;
  std::vector<PageRun>::const_iterator run_;
  std::uint64_t pages_before_ = 0;           // stored pages in the runs before `run_`
  std::vector<std::uint32_t> mapped_times_;  // by index of the shared object
  std::vector<Elf64_Phdr> segments_;
};

}  // namespace

std::vector<Elf64_Phdr> core_segments(const state::ManifestT& manifest, const PageMap& map) {
  if (map.encoding != Encoding::raw) return {};
  const state::AddressSpaceT& space = *manifest.process->address_space;
  SegmentBuilder builder{space, map};
  for (const state::Mapping& mapping : space.mappings) builder.add(mapping);
  return builder.take();
}

}  // namespace icecore
