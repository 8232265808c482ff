// SPDX-License-Identifier: Apache-2.0
#pragma once

// What an image needs of a machine, apart from the state of one process.

#include <memory>
#include <string>
#include <vector>

#include "image/state_generated.h"

namespace icecore {

/// This machine, as an image made here records it.  `vdso` is that of the process.
std::unique_ptr<state::PlatformT> capture_platform(std::vector<std::uint8_t> vdso);

/// How one thing that an image needs differs here.
struct Mismatch {
  std::string subject;
  std::string reason;
  std::string remedy;
};

/// Everything in which this machine cannot stand in for the image's.
std::vector<Mismatch> compare_platform(const state::ManifestT& image);

}  // namespace icecore
