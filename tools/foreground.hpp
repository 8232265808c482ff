// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/restore.hpp>
#include <signal.h>
#include <termios.h>

#include "signals.hpp"

namespace icecore::tool {

/// The signals that are passed on to a process that we stand for.  To be blocked before it is
/// started, so that none gets lost in between.
sigset_t foreground_signals();

/// We stand for a child: its signals come to us, and when it stops we stop.
class StandIn {
 public:
  /// The child is not reaped as long as this lives.
  explicit StandIn(pid_t pid);

  /// Readable when pass_signals() has something to do.
  int fd() const noexcept { return reader_.fd(); }
  /// While it is being snapshotted nobody may look whether it has stopped: waiting for a child
  /// takes the stops of ptrace(2) from the thread that traces it.
  void pass_signals(bool snapshotting = false) const;

 private:
  void handle(const SignalReader::Received& signal, bool snapshotting) const;
  void stop_if_stopped() const;
  bool shares_our_group() const;
  void give_terminal() const;

  pid_t pid_;
  SignalReader reader_;
};

/// Our terminal, as it was before a process came to stand on it.  Destroying this takes it back:
/// its settings, and the foreground from whoever of ours has it.
class TerminalKeeper {
 public:
  TerminalKeeper();
  TerminalKeeper(const TerminalKeeper&) = delete;
  TerminalKeeper& operator=(const TerminalKeeper&) = delete;
  ~TerminalKeeper();

 private:
  int terminal_;  // -1: we have none, or are in the background
  ::termios settings_{};
};

/// As a shell has it: the exit status, or 128 + N after signal N.
int shell_status(int wait_status);

/// How a restored process ended.
struct Ending {
  int status = 0;          ///< as of shell_status()
  bool our_fault = false;  ///< memory was lost, or its pager was killed
  std::string fault = {};  ///< which
};

/// Lives the life of `process` before the eyes of whoever started us: passes signals on, stops when
/// it stops, and returns when it ends.
Ending stay_in_foreground(RestoredProcess& process);

}  // namespace icecore::tool
