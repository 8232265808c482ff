// SPDX-License-Identifier: Apache-2.0
//
// Image::check: everything that a restore needs, held against this machine as it is now.
#include "check.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "compat/platform.hpp"
#include "gpu/restoration.hpp"
#include "image/image_data.hpp"
#include "state/rebuild.hpp"
#include "state/timers.hpp"

namespace icecore {
namespace {

Finding bad(std::string subject, std::string reason, std::string remedy) {
  return {.ok = false,
          .subject = std::move(subject),
          .reason = std::move(reason),
          .remedy = std::move(remedy)};
}

void check_ids(const state::ProcessT& process, const RestoreOptions& options,
               std::vector<Finding>& findings) {
  const auto taken = ids_in_use(process);
  if (taken.empty() || options.pids != Pids::same) return;
  findings.push_back(
      bad(fmt::format("pid {}", taken.front()),
          fmt::format("in use here ({} of {} ids are)", taken.size(), process.threads.size()),
          "end the process that has it, or use --pids namespace"));
  findings.back().transient = true;
}

/// Says that nothing of this kind stands against a restore, if so.
void add_fine(std::string_view kind, std::string subject, std::vector<Finding>& findings) {
  const auto mentions = [&](const Finding& f) { return !f.ok && f.subject.starts_with(kind); };
  if (std::ranges::none_of(findings, mentions))
    findings.push_back({.ok = true, .subject = std::move(subject), .reason = {}, .remedy = {}});
}

/// "file /x: was modified" becomes subject and reason.
Finding from_refusal(const std::string& reason) {
  const std::size_t colon = reason.find(": ");
  if (colon == std::string::npos) return bad(reason, "", "");
  return bad(reason.substr(0, colon), reason.substr(colon + 2), "");
}

}  // namespace

std::vector<Finding> check_image(const ImageReader& image, const RestoreOptions& options,
                                 const gpu::Restoration* gpu) {
  const state::ManifestT& manifest = image.manifest();
  std::vector<Finding> findings;
  for (Mismatch& mismatch : compare_platform(manifest, platform_here()))
    findings.push_back(
        bad(std::move(mismatch.subject), std::move(mismatch.reason), std::move(mismatch.remedy)));
  Refusals refusals;
  check_process(*manifest.process, options, refusals);
  for (std::size_t i = 0; i < refusals.reasons().size(); ++i) {
    findings.push_back(from_refusal(refusals.reasons()[i]));
    findings.back().transient = refusals.is_transient(i);
  }
  check_ids(*manifest.process, options, findings);
  if (gpu != nullptr)
    findings.insert(findings.end(), gpu->findings().begin(), gpu->findings().end());
  return findings;
}

std::vector<Finding> Image::check(const Host& host) const {
  std::vector<Finding> findings;
  for (Mismatch& mismatch : compare_platform(data().reader.manifest(), host))
    findings.push_back(
        bad(std::move(mismatch.subject), std::move(mismatch.reason), std::move(mismatch.remedy)));
  add_fine("cpu", "cpu", findings);
  add_fine("kernel", "kernel", findings);
  return findings;
}

std::vector<Finding> Image::check() const { return check(RestoreOptions{}); }

std::vector<Finding> Image::check(const RestoreOptions& options) const {
  const state::ManifestT& manifest = data().reader.manifest();
  const auto gpu = gpu::Restoration::of(*manifest.process, options);
  std::vector<Finding> findings = check_image(data().reader, options, gpu.get());
  add_fine("cpu", "cpu", findings);
  add_fine("kernel",
           foreign_vdso(manifest).empty()
               ? "kernel"
               : "kernel (another vdso: entry points of the old one will lead to the new one)",
           findings);
  add_fine("file", fmt::format("files ({})", manifest.process->files.size()), findings);
  add_fine("fd", "descriptors", findings);
  add_fine("pid", "process ids", findings);
  if (const ClockOffsets forward = clock_offsets(*manifest.process); forward.needed())
    add_fine("clock",
             fmt::format("clocks, in a time namespace: CLOCK_MONOTONIC set forward by {} s",
                         forward.monotonic_ns / 1'000'000'000),
             findings);
  else
    add_fine("clock", "clocks", findings);
  return findings;
}

}  // namespace icecore
