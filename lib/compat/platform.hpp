// SPDX-License-Identifier: Apache-2.0
#pragma once

// What an image needs of a machine, apart from the state of one process.

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "icecore/host.hpp"
#include "image/state_generated.h"

namespace icecore {

/// This machine, as an image made here records it, but for the vdso, which is the process's own;
/// `cpu_baseline` is one of the levels of baseline.hpp, or empty.
std::unique_ptr<state::PlatformT> capture_platform(const std::string& cpu_baseline);

/// What Host::worker_type has to be, by all else that the machine says.
std::string worker_type_of(const Host& host);

/// How one thing that an image needs differs on a machine.
struct Mismatch {
  std::string subject;
  std::string reason;
  std::string remedy;
};

/// Whether entry points of the vdso of one machine can lead to that of another.
bool can_lead_vdso(const Host& from, const Host& to);

/// As much of this machine as compare_platform() looks at.
Host platform_here();

/// Everything in which the machine cannot stand in for the image's.
std::vector<Mismatch> compare_platform(const state::ManifestT& image, const Host& host);

/// The text of the image's vdso, when this kernel has another one; else empty.
std::span<const std::uint8_t> foreign_vdso(const state::ManifestT& image);

}  // namespace icecore
