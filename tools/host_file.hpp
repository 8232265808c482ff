// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/host.hpp>

#include <string>

namespace icecore::tool {

/// A machine, from a file that `icecore host` has written.
Host read_host_file(const std::string& path);

}  // namespace icecore::tool
