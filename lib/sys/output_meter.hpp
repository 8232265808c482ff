// SPDX-License-Identifier: Apache-2.0
#pragma once

// /proc/PID/io (CONFIG_TASK_IO_ACCOUNTING): how much a process has written.
//
// Kernel facts relied on here:
//  * wchar counts what write(2) and its kin took, whatever the file: also a pipe, a terminal, or a
//    socket.  send(2) and its kin, and stores to mapped files, are not counted.
//  * It can be read until the process has been reaped, also of a zombie; then it is ESRCH.
//  * One pread of an open file takes 1.4 µs.

#include <sys/types.h>

#include <cstdint>
#include <optional>

#include "sys/fd.hpp"

namespace icecore::sys {

/// What one process writes.
class OutputMeter {
 public:
  /// Nothing when the kernel does not tell, or not us.
  static std::optional<OutputMeter> try_open(pid_t pid);

  /// Bytes since the process began; nothing once it has been reaped.
  std::optional<std::uint64_t> written_bytes() const;

 private:
  explicit OutputMeter(Fd file) : file_(std::move(file)) {}

  Fd file_;
};

}  // namespace icecore::sys
