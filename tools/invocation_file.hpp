// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/restore.hpp>

namespace icecore::tool {

/// An unnamed file with what differs at this invocation: variables, an empty string, arguments,
/// each with a NUL behind it.  A program reaches its own under the path in ICECORE_INVOCATION,
/// which leads to a descriptor that each restore replaces.
class InvocationFile {
 public:
  explicit InvocationFile(const icecore::Invocation& invocation);
  InvocationFile(const InvocationFile&) = delete;
  ~InvocationFile();

  /// Inherited by the program, and high enough not to be one that it counts on.
  int fd() const noexcept { return fd_; }

 private:
  int fd_;
};

}  // namespace icecore::tool
