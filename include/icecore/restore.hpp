// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/export.h>
#include <icecore/image.hpp>
#include <icecore/progress.hpp>
#include <icecore/tcp_connections.hpp>
#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <variant>
#include <vector>

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

/// When memory is loaded.
enum class Loading {
  automatic,  ///< lazy, unless there is so little of it that it is there sooner than a pager
  lazy,       ///< when it is touched
  eager,      ///< before the process runs
};

/// When the pages come that nobody has touched.
enum class Fill {
  idle,   ///< in the background, when faults have been quiet for a moment; not before it runs
  now,    ///< in the background, from the start
  never,  ///< only when they are touched
};

/// Whether to keep which pages the process touches, in IMAGE.ws, for the next restore.
enum class Record {
  automatic,  ///< when the image has no usable working set yet
  yes,        ///< add to what is there
  no,
};

/// What differs between two uses of one image, for a program that asks libicecore_guest or reads
/// its invocation file.
struct Invocation {
  std::vector<std::string> variables = {};  ///< "NAME=VALUE"
  std::vector<std::string> arguments = {};
};

/// A file without a name, for a program that is about to be started: the variables, an empty
/// string, the arguments, each with a NUL behind it.  Let the program inherit it, and name it in
/// the variable ICECORE_INVOCATION, as /proc/self/fd/N.  It is not snapshotted: each restore puts
/// another in its place, with RestoreOptions::invocation.
///
/// A descriptor of the caller's, closed on exec, and so high that no program counts on its number.
ICECORE_EXPORT int make_invocation_file(const Invocation& invocation);

struct RestoreOptions {
  Pids pids = Pids::automatic;

  Loading loading = Loading::automatic;
  Fill fill = Fill::idle;
  Record record = Record::automatic;
  /// How long to record, from the first page that is touched; nothing is filled in the background
  /// until then.  Of a process that ends sooner, what it touches after its last write(2) is not
  /// kept, if wait() reaps it and it has no socket.
  std::chrono::milliseconds record_for{10'000};

  /// By descriptor number of the restored process.
  std::map<int, External> external = {};

  /// What becomes of TCP connections that the image holds as established.  Only one process can go
  /// on with them: the next finds their addresses in use.
  TcpConnections tcp = TcpConnections::refuse;

  /// Descriptors of the caller that take the place of the process's standard input, output and
  /// error where those led outside (terminal, pipe, socket).  -1: /dev/null.
  std::array<int, 3> standard_streams = {0, 1, 2};

  /// A process that was on a terminal comes to stand on the controlling terminal of the caller: in
  /// its session, and if it was in the foreground there too, with the settings that it had made.
  /// The caller waits in the background, and takes back both when the process stops or ends.
  /// Without effect when the caller has no terminal or is itself in the background.
  bool on_terminal = false;

  /// Which GPU takes the place of which: UUIDs as nvidia-smi prints them.  Those that are not named
  /// stay what they were.  Needs CUDA 13.0.
  std::map<std::string, std::string> gpu_map = {};
  /// How long the driver may take to move device memory.  0: as its size lets expect.
  std::chrono::milliseconds gpu_move_patience{0};

  /// Nobody sees it in a program without libicecore_guest or an invocation file: its own arguments
  /// and environment stay as they were.  At most 60 KiB.
  Invocation invocation = {};

  ProgressCallback progress = {};

  /// A request to stop ends the restore with Errc::cancelled; nothing is left running.
  std::stop_token stop = {};
};

/// What a restore took, and where the time went.
struct RestoreReport {
  std::chrono::nanoseconds total{};    ///< from the call until the process ran
  std::chrono::nanoseconds check{};    ///< files, machine, process ids
  std::chrono::nanoseconds build{};    ///< process, mappings, descriptors, threads
  std::chrono::nanoseconds fill{};     ///< pages
  std::chrono::nanoseconds thaw{};     ///< last state of every thread, until all ran
  std::chrono::nanoseconds gpu{};      ///< device memory, by the driver
  std::uint64_t filled_bytes = 0;      ///< before the process ran
  std::uint64_t prefetched_bytes = 0;  ///< of these, from the working set
  std::uint64_t missing_bytes = 0;     ///< left to be loaded when they are touched
  std::uint64_t gpu_bytes = 0;         ///< of device memory
  bool lazy = false;
  bool recording = false;
  bool in_namespace = false;
  std::vector<std::string> warnings = {};  ///< why the working set could not be used
};

/// What the pager of a process has done so far.
struct PagerStatistics {
  std::uint64_t faults = 0;            ///< answered
  std::uint64_t zero_faults = 0;       ///< of these, on memory that the image does not store
  std::uint64_t fault_bytes = 0;       ///< loaded because of faults
  std::uint64_t background_bytes = 0;  ///< loaded in the background
  std::uint64_t missing_bytes = 0;     ///< not loaded yet, in the process and all that it forked
  std::uint64_t lost_bytes = 0;        ///< could not be read; touching them is SIGBUS
  std::uint64_t restarts = 0;          ///< of the pager, after it was killed
  std::chrono::nanoseconds
      fault_p50{};  ///< from reading a fault to having filled its page, at most
  std::chrono::nanoseconds fault_p99{};
  bool complete = false;  ///< nothing is missing, or nobody is left; the pager has ended
};

/// A process that runs again; a child of the calling process.
///
/// Destroying this object does nothing to the process.
class ICECORE_EXPORT RestoredProcess {
 public:
  struct ICECORE_NO_EXPORT State;  ///< not for users

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

  /// Of a lazily restored process; all zero for any other.
  PagerStatistics pager_statistics() const noexcept;

  /// Waits until no page is missing any more (or nobody is left who could miss one).  False when
  /// `patience` is over.  At once for a process that was filled before it ran.
  bool wait_filled(std::optional<std::chrono::milliseconds> patience = {}) const;

  /// Becomes readable (POLLIN) when the pager has something to say, and hangs up (POLLHUP) when it
  /// has ended.  -1 when there is none.  Owned by this.
  int pager_fd() const noexcept;

  /// True when every process of the pager has been killed while pages were missing.  From that
  /// moment the kernel gives zeros for them: end the process, whose memory is wrong.
  bool pager_lost() const;

  /// What the pager has to say since the last call, if anything: why memory was lost.
  std::optional<std::string> pager_message() const;

  /// Sends a signal.  A process that is gone is not an error.
  void signal(int number) const;

 private:
  friend RestoredProcess restore(const Image&, const RestoreOptions&);
  friend class PreparedProcess;
  explicit RestoredProcess(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Builds the process from `image` and lets it run.
///
/// Memory is loaded when it is touched (see Loading), by a process of its own
/// (icecore-pager) that goes on until everything is there, whatever becomes of the caller.  The
/// image stays open that long: renaming or deleting it does no harm, overwriting it does.
///
/// Everything that can be known before is checked before anything is started; a failure leaves
/// nothing behind.  The restored process is a child of the calling process; its end raises
/// SIGCHLD there.  May be called from any thread and from several at once; the ptrace work is done
/// on a thread of its own.  A waitpid(-1) on another thread of the caller would take the ptrace
/// stops this waits for: wait for named pids while a restore is under way.
/// Needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN, and CAP_SYS_PTRACE.
/// Throws icecore::Error.
ICECORE_EXPORT RestoredProcess restore(const Image& image, const RestoreOptions& options = {});

/// A restored process that is complete but has not run yet: what is left is microseconds.  It takes
/// the memory of its working set and nothing else.
///
/// Destroying it, or the end of the caller, ends it.  Two threads of the caller wait with it.
class ICECORE_EXPORT PreparedProcess {
 public:
  struct ICECORE_NO_EXPORT State;  ///< not for users

  PreparedProcess(PreparedProcess&&) noexcept;
  PreparedProcess& operator=(PreparedProcess&&) noexcept;
  ~PreparedProcess();

  /// As seen by the caller.
  pid_t pid() const noexcept;

  /// Owned by this.  Tells of the end of a process with one thread only; of others when they have
  /// been started, since those that trace a thread have to let go of it first.
  int pidfd() const noexcept;

  /// So far.
  const RestoreReport& report() const noexcept;

  /// Lets it run; this object is then empty.  One that somebody has killed meanwhile has ended
  /// then, as wait() tells.
  RestoredProcess start() &&;

 private:
  friend PreparedProcess prepare(const Image&, const RestoreOptions&);
  explicit PreparedProcess(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Does all of restore() but its last step.  Throws what restore() throws.
ICECORE_EXPORT PreparedProcess prepare(const Image& image, const RestoreOptions& options = {});

}  // namespace icecore
