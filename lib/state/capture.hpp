// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <vector>

#include "icecore/tcp_connections.hpp"
#include "state/file_table.hpp"
#include "state/refusals.hpp"
#include "sys/process.hpp"
#include "sys/procfs.hpp"
#include "sys/remote_memory.hpp"
#include "sys/tcp_repair.hpp"
#include "tracee/frozen_process.hpp"

namespace icecore {

/// What every room of state/ captures from: a process that stands still.
struct Capture {
  explicit Capture(FrozenProcess& frozen);

  FrozenProcess& process;
  pid_t pid;
  sys::Fd pidfd;
  sys::RemoteMemory memory;
  std::vector<sys::Status> statuses;  ///< of each thread, the leader first
  FileTable files;
  bool is_being_loaded = false;   ///< its pager has told what is missing
  std::vector<int> outside = {};  ///< descriptors that belong to whoever restores
  std::vector<sys::Fd>
      own_connections;  ///< both ends of TCP connections of the process with itself
  TcpConnections tcp = TcpConnections::refuse;  ///< those with others
  bool is_last = false;                         ///< the process is to be killed
  /// Established connections with others, once there is one.
  std::optional<sys::HeldConnections> held_connections = {};
  Refusals refusals;  ///< a room that meets what it cannot keep adds to these and goes on
};

}  // namespace icecore
