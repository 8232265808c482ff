// SPDX-License-Identifier: Apache-2.0
#include "compat/platform.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <iterator>

#include "sys/cpu.hpp"
#include "sys/proc_maps.hpp"
#include "sys/process.hpp"

namespace icecore {
namespace {

/// XSAVE components that some thread of the image has in use.
std::uint64_t components_in_use(const state::ProcessT& process) {
  constexpr std::size_t kHeader = 512;
  std::uint64_t used = 0;
  for (const auto& thread : process.threads) {
    std::uint64_t components = 0;
    if (thread->xstate.size() >= kHeader + sizeof components)
      std::memcpy(&components, thread->xstate.data() + kHeader, sizeof components);
    used |= components;
  }
  return used;
}

void compare_instructions(const state::PlatformT& image, std::vector<Mismatch>& mismatches) {
  const auto here = sys::instruction_features();
  std::vector<std::string> missing;
  std::ranges::set_difference(image.cpu_features, here, std::back_inserter(missing));
  if (!missing.empty())
    mismatches.push_back(
        {"cpu",
         fmt::format("lacks instructions that the process may use: {}", fmt::join(missing, " ")),
         "restore on a machine with these features, or snapshot on one without them"});
}

void compare_xsave(const state::ManifestT& image, std::vector<Mismatch>& mismatches) {
  const sys::XsaveLayout here = sys::xsave_layout();
  const std::uint64_t used = components_in_use(*image.process);
  for (std::size_t i = 2; i < 64; ++i) {
    if ((used >> i & 1) == 0) continue;
    const auto& offsets = image.platform->xsave_offsets;
    const std::uint32_t there = i < offsets.size() ? offsets[i] : 0;
    if ((here.components >> i & 1) != 0 && here.offsets[i] == there) continue;
    mismatches.push_back(
        {"cpu",
         fmt::format("keeps extended registers (XSAVE component {}) in another place, "
                     "or has none",
                     i),
         "restore on the same kind of CPU"});
    return;
  }
}

/// Names and sizes of the kernel's mappings for the vdso, one after the other.
struct VdsoPart {
  std::string name;
  std::uint64_t size;
  friend bool operator==(const VdsoPart&, const VdsoPart&) = default;
};

std::vector<VdsoPart> parts_in(const state::AddressSpaceT& image) {
  std::vector<VdsoPart> parts;
  for (const state::Mapping& mapping : image.mappings)
    if (mapping.kind() == state::MappingKind::vdso && mapping.name() >= 0)
      parts.push_back(
          {image.names[static_cast<std::size_t>(mapping.name())], mapping.end() - mapping.start()});
  return parts;
}

void compare_vdso(const state::ManifestT& image, std::vector<Mismatch>& mismatches) {
  const auto wanted = parts_in(*image.process->address_space);
  if (wanted.empty()) return;
  std::vector<VdsoPart> here;
  std::span<const std::uint8_t> text;
  for (const sys::Vma& vma : sys::read_maps(sys::current_process())) {
    if (vma.name != "[vdso]" && vma.name != "[vvar]" && vma.name != "[vvar_vclock]") continue;
    here.push_back({vma.name, vma.size()});
    if (vma.name == "[vdso]") text = {reinterpret_cast<const std::uint8_t*>(vma.start), vma.size()};
  }
  if (here != wanted || !std::ranges::equal(text, image.platform->vdso))
    mismatches.push_back({"kernel",
                          fmt::format("has another vdso than the image's ({}, here {})",
                                      image.platform->kernel_release, sys::kernel_release()),
                          "restore under the same kernel build"});
}

}  // namespace

std::unique_ptr<state::PlatformT> capture_platform(std::vector<std::uint8_t> vdso) {
  auto platform = std::make_unique<state::PlatformT>();
  const sys::XsaveLayout layout = sys::xsave_layout();
  platform->kernel_release = sys::kernel_release();
  platform->xsave_size = layout.size_bytes;
  platform->xfeatures = layout.components;
  platform->xsave_offsets.assign(layout.offsets.begin(), layout.offsets.end());
  platform->cpu_features = sys::instruction_features();
  platform->vdso = std::move(vdso);
  return platform;
}

std::vector<Mismatch> compare_platform(const state::ManifestT& image) {
  std::vector<Mismatch> mismatches;
  compare_instructions(*image.platform, mismatches);
  compare_xsave(image, mismatches);
  compare_vdso(image, mismatches);
  return mismatches;
}

}  // namespace icecore
