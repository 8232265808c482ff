// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <unordered_set>
#include <utility>

#include "image/mapping.hpp"
#include "image/validation.hpp"

namespace icecore {
namespace {

constexpr std::size_t kMaxAuxvBytes = 4096;
constexpr auto kKnownMappingFlags = static_cast<std::uint64_t>(state::MappingFlag::ANY);

void validate_kind(const state::Mapping& mapping, const state::ProcessT& process) {
  const bool is_file = mapping.kind() == state::MappingKind::file;
  if (is_file)
    validate_index(mapping.file(), process.files.size(), "mapping of file");
  else
    require(mapping.file() == -1, "mapping {:#x} is not of a file but names one", mapping.start());

  switch (mapping.kind()) {
    case state::MappingKind::anonymous:
      require(!mapping.shared(), "mapping {:#x} is private and shared", mapping.start());
      return;
    case state::MappingKind::shared_anonymous:
      require(mapping.shared(), "mapping {:#x} is shared memory but private", mapping.start());
      require(mapping.object() < process.address_space->shared_objects.size(),
              "mapping of shared object {}", mapping.object());
      return;
    case state::MappingKind::file:
    case state::MappingKind::vdso:
      return;
  }
  corrupt("mapping {:#x} of unknown kind", mapping.start());
}

void validate_mapping(const state::Mapping& mapping, const state::ProcessT& process) {
  const std::uint64_t start = mapping.start();
  const std::uint64_t end = mapping.end();
  require(is_page_aligned(start) && is_page_aligned(end) && is_page_aligned(mapping.offset()),
          "mapping {:#x} is not page-aligned", start);
  require(start < end && end <= kAddressEnd, "mapping {:#x} ends at {:#x}", start, end);
  require(mapping.offset() <= kMaxFileOffset - (end - start), "mapping {:#x} of offset {:#x}",
          start, mapping.offset());
  require(mapping.protection() <= 7, "mapping {:#x} of protection {}", start, mapping.protection());
  require((mapping.vm_flags() & ~kKnownMappingFlags) == 0, "mapping {:#x} of flags {:#x}", start,
          mapping.vm_flags());
  validate_optional_index(mapping.name(), process.address_space->names.size(), "mapping of name");
  validate_kind(mapping, process);
}

void validate_special_memory(const state::Mapping& mapping) {
  using state::MappingFlag;
  const bool anonymous = mapping.kind() == state::MappingKind::anonymous;
  require(anonymous || !has(mapping, MappingFlag::droppable), "mapping {:#x} is droppable",
          mapping.start());
  for (const auto& [flag, bytes] : {std::pair{MappingFlag::huge_2m, std::uint64_t{2} << 20},
                                    std::pair{MappingFlag::huge_1g, std::uint64_t{1} << 30}})
    require(!has(mapping, flag) ||
                (anonymous && mapping.start() % bytes == 0 && mapping.end() % bytes == 0),
            "mapping {:#x} to {:#x} has huge pages", mapping.start(), mapping.end());
  require(anonymous || !has(mapping, MappingFlag::gpu_data), "mapping {:#x} is of GPU data",
          mapping.start());
  require(!has(mapping, MappingFlag::huge_2m) || !has(mapping, MappingFlag::huge_1g),
          "mapping {:#x} has pages of two sizes", mapping.start());
}

void validate_guards(const state::AddressSpaceT& space) {
  std::uint64_t previous_end = 0;
  for (const state::AddressRange& guard : space.guards) {
    require(is_page_aligned(guard.start()) && is_page_aligned(guard.end()) &&
                previous_end <= guard.start() && guard.start() < guard.end() &&
                guard.end() <= kAddressEnd,
            "a guard region at {:#x} to {:#x}", guard.start(), guard.end());
    previous_end = guard.end();
    const auto mapping = std::ranges::find_if(
        space.mappings, [&](const state::Mapping& m) { return guard.start() < m.end(); });
    require(mapping != space.mappings.end() && mapping->start() <= guard.start() &&
                guard.end() <= mapping->end(),
            "the guard region at {:#x} is in no mapping", guard.start());
  }
  require(space.new_memory <= state::NewMemory::MAX, "new memory is locked in an unknown way");
}

void validate_segments(const state::AddressSpaceT& space) {
  constexpr std::uint32_t kSegmentMode = 02777;  // SHM_LOCKED, permissions
  std::unordered_set<std::uint32_t> objects;
  for (const auto& segment : space.segments) {
    require(segment != nullptr, "an absent segment of shared memory");
    validate_index(segment->object, space.shared_objects.size(), "segment of shared object");
    require(objects.insert(segment->object).second, "two segments are one shared object");
    require(segment->id >= 0 && (segment->mode & ~kSegmentMode) == 0, "segment {} of mode {:#o}",
            segment->id, segment->mode);
    const std::uint64_t size = space.shared_objects[segment->object].size();
    require(size <= kAddressEnd && segment->size <= size && size - segment->size < kPageSize,
            "segment {} has {} bytes", segment->id, segment->size);
  }
}

void validate_holes(const state::AddressSpaceT& space) {
  for (const state::AddressRange& hole : space.holes)
    require(is_page_aligned(hole.start()) && is_page_aligned(hole.end()) &&
                hole.start() < hole.end() && hole.end() <= kAddressEnd,
            "a hole at {:#x} to {:#x}", hole.start(), hole.end());
}

void validate_policies(const state::AddressSpaceT& space) {
  constexpr std::size_t kMaxPolicyWords = 16;
  std::uint64_t previous_end = 0;
  auto mapping = space.mappings.begin();
  for (const auto& policy : space.policies) {
    require(policy != nullptr, "an absent memory policy");
    require(is_page_aligned(policy->start) && is_page_aligned(policy->end) &&
                previous_end <= policy->start && policy->start < policy->end,
            "a memory policy at {:#x} to {:#x}", policy->start, policy->end);
    previous_end = policy->end;
    while (mapping != space.mappings.end() && mapping->end() <= policy->start) ++mapping;
    require(mapping != space.mappings.end() && mapping->start() <= policy->start &&
                policy->end <= mapping->end(),
            "the memory policy at {:#x} is of no mapping", policy->start);
    require(policy->nodes.size() <= kMaxPolicyWords, "a memory policy with {} words of nodes",
            policy->nodes.size());
  }
}

void validate_range(std::uint64_t start, std::uint64_t end, const char* what) {
  require(start <= end && end <= kAddressEnd, "the {} are at {:#x} to {:#x}", what, start, end);
}

}  // namespace

void validate_address_space(const state::ProcessT& process) {
  const state::AddressSpaceT& space = *process.address_space;
  std::uint64_t previous_end = 0;
  for (const state::Mapping& mapping : space.mappings) {
    validate_mapping(mapping, process);
    validate_special_memory(mapping);
    require(previous_end <= mapping.start(), "mapping {:#x} is out of order", mapping.start());
    previous_end = mapping.end();
  }
  validate_guards(space);
  validate_segments(space);
  validate_holes(space);
  validate_policies(space);
  for (const std::string& name : space.names)
    require(has_no_nul(name), "a mapping's name holds a NUL byte");
  require(space.auxv.size() % 16 == 0 && space.auxv.size() <= kMaxAuxvBytes,
          "an auxiliary vector of {} bytes", space.auxv.size());
  for (const std::uint64_t address :
       {space.start_code, space.end_code, space.start_data, space.end_data, space.start_brk,
        space.brk, space.start_stack})
    require(address <= kAddressEnd, "address {:#x} is not the program's", address);
  validate_range(space.arg_start, space.arg_end, "arguments");
  validate_range(space.env_start, space.env_end, "environment variables");
  validate_index(space.executable, process.files.size(), "executable is file");
}

void validate_file_pages(const state::ProcessT& process, const PageMap& map) {
  auto file = process.files.begin();
  for (const PageRun& run : map.runs) {
    if (run.end() <= kFilePagesStart) continue;
    const auto end_of = [](const state::FileT& f) {
      return f.kept->first_page + up_to_page(f.size);
    };
    while (file != process.files.end() && (!(*file)->kept || end_of(**file) <= run.address)) ++file;
    require(file != process.files.end() && (*file)->kept->first_page <= run.address &&
                run.end() <= end_of(**file),
            "stored page {:#x} is of no file", run.address);
  }
}

void validate_stored_pages(const std::vector<state::Mapping>& mappings, const PageMap& map) {
  auto mapping = mappings.begin();
  for (const PageRun& run : map.runs) {
    if (run.address >= kFilePagesStart) break;
    for (std::uint64_t address = run.address; address < run.end(); address = mapping->end()) {
      while (mapping != mappings.end() && mapping->end() <= address) ++mapping;
      require(mapping != mappings.end() && mapping->start() <= address,
              "stored page {:#x} is not mapped", address);
      require(mapping->kind() != state::MappingKind::file || !mapping->shared(),
              "stored page {:#x} is of a shared file", address);
      require(!has(*mapping, state::MappingFlag::droppable), "stored page {:#x} is droppable",
              address);
    }
  }
}

}  // namespace icecore
