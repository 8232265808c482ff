// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/export.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace icecore {

/// What a caller can do about a failure.  The message tells a person what happened.
enum class Errc {
  invalid_argument,  ///< the call makes no sense: fix the call
  target_gone,       ///< the process ended before the snapshot was complete
  permission,        ///< the kernel does not allow it to this caller
  unsupported,       ///< the process has state that cannot be snapshotted: see reasons()
  corrupt_image,     ///< the image is damaged, or is not an image
  incompatible,      ///< the image cannot be restored here, as things are now: see reasons()
  io,                ///< a file or device failed; sys_errno() has the kernel's word
  cancelled,         ///< the caller asked for it to stop
  internal,          ///< a promise inside icecore is broken: please report it
};

/// The one exception type of icecore.
///
/// After any Error from snapshot() the target runs on as before and no image exists at the wanted
/// name; but for one that says that the process "is lost": a driver could not give a process its
/// GPU memory back, and it is left stopped.  After any Error from restore() nothing of the restored
/// process is left.
class ICECORE_EXPORT Error : public std::runtime_error {
 public:
  Error(Errc code, const std::string& message, int sys_errno = 0);

  /// A refusal: the message is `headline` followed by every reason.
  Error(Errc code, const std::string& headline, std::vector<std::string> reasons);

  ~Error() override;

  Errc code() const noexcept { return code_; }

  /// The errno value behind the failure, or 0.
  int sys_errno() const noexcept { return sys_errno_; }

  /// One entry for each reason of a refusal, complete: "fd 7: io_uring instance: …".
  const std::vector<std::string>& reasons() const noexcept { return reasons_; }

 private:
  Errc code_;
  int sys_errno_ = 0;
  std::vector<std::string> reasons_;
};

}  // namespace icecore
