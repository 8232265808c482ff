// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "icecore/restore.hpp"

namespace icecore {

class ImageReader;
namespace gpu {
class Restoration;
}

/// What stands against restoring the image here.  Of `gpu`, which may be null, also what does not.
std::vector<Finding> check_image(const ImageReader& image, const RestoreOptions& options,
                                 const gpu::Restoration* gpu);

}  // namespace icecore
