// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/export.h>
#include <icecore/image.hpp>
#include <icecore/progress.hpp>
#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <stop_token>
#include <string>
#include <variant>

namespace icecore {

/// Which process ids the restored process gets.
enum class Pids {
  automatic,     ///< the original ones where they are free, else as in_namespace
  same,          ///< the original ones, or refuse
  in_namespace,  ///< the original ones, in a pid namespace of its own
};

/// What takes the place of a descriptor that led outside the process when it was snapshotted.
struct External {
  struct Close {};  ///< the process finds it closed
  /// A path, opened with the descriptor's own flags; or a descriptor of the caller, which keeps it.
  std::variant<Close, std::filesystem::path, int> target;
};

struct RestoreOptions {
  Pids pids = Pids::automatic;

  /// By descriptor number of the restored process.
  std::map<int, External> external = {};

  /// Descriptors of the caller that take the place of the process's standard input, output and
  /// error where those led outside (terminal, pipe, socket).  -1: /dev/null.
  std::array<int, 3> standard_streams = {0, 1, 2};

  ProgressCallback progress = {};

  /// A request to stop ends the restore with Errc::cancelled; nothing is left running.
  std::stop_token stop = {};
};

/// What a restore took, and where the time went.
struct RestoreReport {
  std::chrono::nanoseconds total{};  ///< from the call until the process ran
  std::chrono::nanoseconds check{};  ///< files, machine, process ids
  std::chrono::nanoseconds build{};  ///< process, mappings, descriptors, threads
  std::chrono::nanoseconds fill{};   ///< pages
  std::chrono::nanoseconds thaw{};   ///< last state of every thread, until all ran
  std::uint64_t filled_bytes = 0;
  bool in_namespace = false;
};

/// A process that runs again; a child of the calling process.
///
/// Destroying this object does nothing to the process.
class ICECORE_EXPORT RestoredProcess {
 public:
  RestoredProcess(RestoredProcess&&) noexcept;
  RestoredProcess& operator=(RestoredProcess&&) noexcept;
  ~RestoredProcess();

  /// As seen by the caller.
  pid_t pid() const noexcept;

  /// A descriptor (pidfd_open(2)) that becomes readable when the process ends.  Owned by this.
  int pidfd() const noexcept;

  const RestoreReport& report() const noexcept;

  /// Waits for the process to end and reaps it.  Returns the status as wait(2) does.
  /// Once only.  Throws Errc::io when somebody else has reaped it.
  int wait();

  /// Sends a signal.  A process that is gone is not an error.
  void signal(int number) const;

 private:
  struct State;
  friend RestoredProcess restore(const Image&, const RestoreOptions&);
  explicit RestoredProcess(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Builds the process from `image` and lets it run.
///
/// Everything that can be known before is checked before anything is started; a failure leaves
/// nothing behind.  The restored process is a child of the calling process; its end raises
/// SIGCHLD there.  May be called from any thread and from several at once; the ptrace work is done
/// on a thread of its own.  A waitpid(-1) on another thread of the caller would take the ptrace
/// stops this waits for: wait for named pids while a restore is under way.
/// Needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN, and CAP_SYS_PTRACE.
/// Throws icecore::Error.
ICECORE_EXPORT RestoredProcess restore(const Image& image, const RestoreOptions& options = {});

}  // namespace icecore
