// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "icecore/restore.hpp"

namespace icecore {

class ImageReader;

/// What stands against restoring the image here; empty when nothing does.
std::vector<Finding> check_image(const ImageReader& image, const RestoreOptions& options);

}  // namespace icecore
