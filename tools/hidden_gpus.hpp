// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace icecore::tool {

/// Lets this process, and those that it starts from now on, see no NVIDIA GPU until show(): for
/// programs that are snapshotted where there is none, or that must not touch one before.
///
/// In a mount namespace of our own, where /dev/null lies over each device; the libraries of the
/// driver stay.  Nobody else sees any of it, and it ends with us.
class HiddenGpus {
 public:
  /// While the process has one thread.  Throws Errc::permission without CAP_SYS_ADMIN.
  HiddenGpus();

  void show();

 private:
  std::vector<std::string> covered_;
};

}  // namespace icecore::tool
