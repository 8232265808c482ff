// SPDX-License-Identifier: Apache-2.0
#include "compat/platform.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/user.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <optional>
#include <utility>

#include "compat/baseline.hpp"
#include "image/digest.hpp"
#include "image/vdso_text.hpp"
#include "sys/cpu.hpp"
#include "sys/proc_maps.hpp"
#include "sys/process.hpp"

namespace icecore {
namespace {

std::string digest_text(std::span<const std::uint8_t> bytes) {
  const Digest128 digest = digest128(std::as_bytes(bytes));
  return fmt::format("{:016x}{:016x}", digest.high, digest.low);
}

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

void compare_instructions(const state::PlatformT& image, const Host& host,
                          std::vector<Mismatch>& mismatches) {
  std::vector<std::string> missing;
  std::ranges::set_difference(image.cpu_features, host.cpu_features, std::back_inserter(missing));
  if (!missing.empty())
    mismatches.push_back(
        {"cpu",
         fmt::format("lacks instructions that the process may use: {}", fmt::join(missing, " ")),
         "restore on a machine with these features, or snapshot on one without them"});
}

void compare_xsave(const state::ManifestT& image, const Host& host,
                   std::vector<Mismatch>& mismatches) {
  const std::uint64_t used = components_in_use(*image.process);
  for (std::size_t i = 2; i < 64; ++i) {
    if ((used >> i & 1) == 0) continue;
    const auto& offsets = image.platform->xsave_offsets;
    const std::uint64_t there = i < offsets.size() ? offsets[i] : 0;
    const std::uint64_t here = i < host.xsave_offsets.size() ? host.xsave_offsets[i] : 0;
    if ((host.xsave_components >> i & 1) != 0 && here == there) continue;
    mismatches.push_back(
        {"cpu",
         fmt::format("keeps extended registers (XSAVE component {}) in another place, "
                     "or has none",
                     i),
         "restore on the same kind of CPU"});
    return;
  }
}

std::string vdso_part(std::string_view name, std::uint64_t size_bytes) {
  return fmt::format("{} {}", name, size_bytes);
}

std::vector<std::string> vdso_parts(const state::AddressSpaceT& image) {
  std::vector<std::string> parts;
  for (const state::Mapping& mapping : image.mappings)
    if (mapping.kind() == state::MappingKind::vdso && mapping.name() >= 0)
      parts.push_back(vdso_part(image.names[static_cast<std::size_t>(mapping.name())],
                                mapping.end() - mapping.start()));
  return parts;
}

/// Of what the process has not unmapped.
bool has_same_vdso(const state::ManifestT& image, const Host& host) {
  const auto is_here = [&](const std::string& part) {
    return std::ranges::find(host.vdso_parts, part) != host.vdso_parts.end();
  };
  return std::ranges::all_of(vdso_parts(*image.process->address_space), is_here) &&
         (image.platform->vdso.empty() || host.vdso_digest == digest_text(image.platform->vdso));
}

/// Where the text of the image's vdso lies, if that is known in full.
std::optional<std::pair<std::uint64_t, std::uint64_t>> vdso_range(const state::ManifestT& image) {
  const state::AddressSpaceT& space = *image.process->address_space;
  for (const state::Mapping& mapping : space.mappings)
    if (mapping.kind() == state::MappingKind::vdso && mapping.name() >= 0 &&
        space.names[static_cast<std::size_t>(mapping.name())] == "[vdso]" &&
        mapping.end() - mapping.start() == image.platform->vdso.size())
      return std::pair{mapping.start(), mapping.end()};
  return std::nullopt;
}

std::uint64_t instruction_pointer(const state::ThreadT& thread) {
  ::user_regs_struct registers;
  std::memcpy(&registers, thread.registers.data(), sizeof registers);
  return registers.rip;
}

/// Why the entry points of the image's vdso cannot lead to that of the host; empty when they can.
std::string why_it_cannot_lead(const state::ManifestT& image, const Host& host) {
  const auto range = vdso_range(image);
  const auto functions = function_names(vdso_functions(image.platform->vdso));
  if (!range || functions.empty() || host.vdso_functions.empty()) return "which is not understood";
  const auto stranded = stranded_functions(functions, host.vdso_functions);
  if (!stranded.empty())
    return fmt::format("which offers what this kernel has not: {}", fmt::join(stranded, " "));
  for (const auto& thread : image.process->threads)
    if (instruction_pointer(*thread) - range->first < range->second - range->first)
      return fmt::format("and thread {} was inside it", thread->tid);
  return {};
}

void compare_vdso(const state::ManifestT& image, const Host& host,
                  std::vector<Mismatch>& mismatches) {
  if (has_same_vdso(image, host)) return;
  if (const std::string why = why_it_cannot_lead(image, host); !why.empty())
    mismatches.push_back({"kernel",
                          fmt::format("has another vdso than the image's ({}, here {}), {}",
                                      image.platform->kernel_release, host.kernel_release, why),
                          "restore under the same kernel build"});
}

void look_at_vdso(Host& host) {
  for (const sys::Vma& vma : sys::read_maps(sys::current_process())) {
    if (vma.name != "[vdso]" && vma.name != "[vvar]" && vma.name != "[vvar_vclock]") continue;
    host.vdso_parts.push_back(vdso_part(vma.name, vma.size()));
    if (vma.name != "[vdso]") continue;
    const std::span text{reinterpret_cast<const std::uint8_t*>(vma.start), vma.size()};
    host.vdso_digest = digest_text(text);
    host.vdso_functions = function_names(vdso_functions(text));
  }
}

}  // namespace

std::unique_ptr<state::PlatformT> capture_platform(const std::string& cpu_baseline) {
  auto platform = std::make_unique<state::PlatformT>();
  const sys::XsaveLayout layout = sys::xsave_layout();
  platform->kernel_release = sys::kernel_release();
  platform->xsave_size = layout.size_bytes;
  platform->xfeatures = layout.components;
  platform->xsave_offsets.assign(layout.offsets.begin(), layout.offsets.end());
  platform->cpu_features = features_within(cpu_baseline, sys::instruction_features());
  platform->cpu_baseline = cpu_baseline;
  return platform;
}

std::span<const std::uint8_t> foreign_vdso(const state::ManifestT& image) {
  Host host;
  look_at_vdso(host);
  if (has_same_vdso(image, host)) return {};
  return image.platform->vdso;
}

bool can_lead_vdso(const Host& from, const Host& to) {
  return (from.vdso_parts == to.vdso_parts && from.vdso_digest == to.vdso_digest) ||
         (!from.vdso_functions.empty() && !to.vdso_functions.empty() &&
          stranded_functions(from.vdso_functions, to.vdso_functions).empty());
}

Host platform_here() {
  Host host;
  const sys::XsaveLayout layout = sys::xsave_layout();
  host.kernel_release = sys::kernel_release();
  host.xsave_size_bytes = layout.size_bytes;
  host.xsave_components = layout.components;
  host.xsave_offsets.assign(layout.offsets.begin(), layout.offsets.end());
  host.cpu_features = sys::instruction_features();
  look_at_vdso(host);
  return host;
}

std::vector<Mismatch> compare_platform(const state::ManifestT& image, const Host& host) {
  std::vector<Mismatch> mismatches;
  compare_instructions(*image.platform, host, mismatches);
  compare_xsave(image, host, mismatches);
  compare_vdso(image, host, mismatches);
  return mismatches;
}

}  // namespace icecore
