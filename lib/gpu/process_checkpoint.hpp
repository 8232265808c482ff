// SPDX-License-Identifier: Apache-2.0
#pragma once

// The driver saves device memory into memory of the process itself (cuCheckpointProcess*, driver
// 570 and later).
//
// Facts relied on here (docs/gpu.md says which of them have been seen):
//  * The driver's own thread in the process, made by cuInit, does the work of every call.  Where it
//    cannot run the call hangs, whatever its timeout: so the process must not be stopped.
//  * A call that is abandoned may still be carried out later.  The state tells.
//  * Lock: running → locked.  Waits for submitted work; NOT_READY after the timeout, and running
//  then.
//  * Checkpoint: locked → checkpointed.  Restore: checkpointed → locked.  Unlock: locked → running.
//    From any other state ILLEGAL_STATE, without effect.
//  * OUT_OF_MEMORY in Restore cannot be made good: every later call fails.

#include <sys/types.h>

#include <chrono>
#include <stop_token>
#include <vector>

#include "gpu/backend.hpp"
#include "gpu/helper_process.hpp"

namespace icecore::gpu {

/// What the driver wants besides the data: contexts, modules, page tables.
constexpr std::uint64_t kDriverOverhead = std::uint64_t{256} << 20;

struct Patience {
  std::chrono::milliseconds work{10'000};  ///< for what the GPUs have to do still
  std::chrono::milliseconds move{0};       ///< of device memory; 0: as its size lets expect
};

/// What became of the driver, in words.
struct Problem {
  std::string reason;
  std::string remedy;
};

/// What the driver of this machine is and has.
struct DriverHere {
  int api = 0;  ///< cuDriverGetVersion
  std::string release;
  std::vector<DeviceInfo> devices;
};

class ProcessCheckpoint final : public Backend {
 public:
  explicit ProcessCheckpoint(Patience patience, std::stop_token stop = {})
      : patience_(patience), stop_(std::move(stop)) {}

  /// Loads the driver.  Empty when it can do what we need.
  Problem load(DriverHere& driver);
  /// Adds what is free in each device.
  Problem measure(DriverHere& driver);

  /// The process that all other calls are about.  False when the driver knows none of that id.
  bool attach(pid_t pid);
  /// The same, of a process that does not run yet.
  void attach(pid_t pid, pid_t restore_thread, ProcessState found, bool is_saved);

  pid_t helper() const noexcept { return helper_.pid(); }
  pid_t restore_thread() const noexcept { return restore_thread_; }
  ProcessState found() const noexcept { return found_; }

  void quiesce() override;
  void save(const ThreadGate& gate) override;
  void restore(const ThreadGate& gate, std::span<const GpuPair> pairs) override;
  void resume(const ThreadGate& gate) override;
  std::string roll_back(const ThreadGate& gate) noexcept override;

  /// The process will be killed: there is nothing to undo.
  void leave() noexcept;

 private:
  /// Makes a call of the driver.  Throws when there is no answer.
  Answer call(Call what, const ThreadGate& gate, std::chrono::milliseconds patience,
              std::span<const GpuPair> pairs = {});
  /// The same, and throws when the answer is not SUCCESS.
  void perform(Call what, const ThreadGate& gate, std::chrono::milliseconds patience,
               std::span<const GpuPair> pairs = {});
  ProcessState ask_state(const ThreadGate& gate);
  void step_back(const ThreadGate& gate);
  std::chrono::milliseconds time_to_move() const;

  Patience patience_;
  std::stop_token stop_;
  HelperProcess helper_;
  std::uint64_t device_bytes_ = 0;
  pid_t pid_ = 0;
  pid_t restore_thread_ = 0;
  ProcessState found_ = ProcessState::running;
  bool touched_ = false;  ///< a step was begun that is not undone
};

/// "GPU-5f0c…" as nvidia-smi prints it, and back; nothing when it is no such text.
std::string uuid_text(const Uuid& uuid);
std::optional<Uuid> parse_uuid(const std::string& text);

/// "13.0"
std::string version_text(int version);

}  // namespace icecore::gpu
