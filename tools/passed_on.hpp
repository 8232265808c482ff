// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/image.hpp>
#include <icecore/restore.hpp>

#include <map>
#include <string>

namespace icecore::tool {

/// Pipes and sockets beyond the standard streams that whoever started icecore has passed on,
/// knowing it or not: shells and CI runners do.  They belong to one invocation, as its standard
/// streams do.
class PassedOn {
 public:
  /// Looks at our descriptors; those that we open ourselves are closed on exec.
  PassedOn();

  /// For a restore: the program has ours of the same number, or none, as if it had been started by
  /// this invocation.  What `options` say already stays.
  void give(const Image& image, RestoreOptions& options) const;

  /// For an image of a program that we have started: only those that it has from us, and still has.
  /// What it has opened itself no invocation can give it.
  void give_own(const Image& image, RestoreOptions& options) const;

 private:
  std::map<int, std::string> ours_;  ///< what /proc/self/fd says of each
};

}  // namespace icecore::tool
