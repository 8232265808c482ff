// SPDX-License-Identifier: Apache-2.0
#include "gpu/process_checkpoint.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "icecore/error.hpp"
#include "sys/machine.hpp"

namespace icecore::gpu {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// For calls that move nothing.
constexpr milliseconds kShort = seconds{5};
/// The driver takes 3 s and more to attach a new process, longer where it has to be woken.
constexpr milliseconds kToLoad = seconds{60};

const char* name_of(Call call) {
  switch (call) {
    case Call::hello:
    case Call::free_memory:
      return "cuInit";
    case Call::thread_id:
      return "cuCheckpointProcessGetRestoreThreadId";
    case Call::state:
      return "cuCheckpointProcessGetState";
    case Call::lock:
      return "cuCheckpointProcessLock";
    case Call::checkpoint:
      return "cuCheckpointProcessCheckpoint";
    case Call::restore:
      return "cuCheckpointProcessRestore";
    case Call::unlock:
      return "cuCheckpointProcessUnlock";
    case Call::leave:
      break;
  }
  return "CUDA";
}

/// What a failed call is known to mean.
std::string_view meaning(Call call, Result result) {
  switch (result) {
    case Result::out_of_memory:
      if (call == Call::restore)
        return ": there is not enough free memory in the GPU; the driver cannot try again";
      return ": there is not enough memory for it; or a part of a GPU (MIG), which drivers cannot "
             "save";
    case Result::not_supported:
      return ": the driver cannot save what this process uses: managed memory "
             "(cudaMallocManaged), memory shared between processes (CUDA IPC, before driver 610), "
             "MPS or a profiler";
    case Result::invalid_value:
      if (call == Call::restore)
        return ": these are not the GPUs that the driver wants, or the process shares memory with "
               "another (CUDA IPC, before driver 610)";
      return "";
    case Result::not_ready:
      return ": the GPUs are still at work";
    case Result::operating_system:
      return ": the driver cannot reach the process";
    case Result::not_permitted:
      return ": not permitted: switch persistence mode on (nvidia-smi -pm 1)";
    case Result::illegal_state:
      return ": somebody else has locked or unlocked the process meanwhile";
    default:
      return "";
  }
}

std::string describe(Call call, const Answer& answer) {
  const std::string_view name = answer.error_name[0] != '\0' ? answer.error_name : "error";
  return fmt::format("{}: {} ({}){}", name_of(call), name, static_cast<int>(answer.result),
                     meaning(call, answer.result));
}

std::string describe(Call call, HelperProcess::Silence silence, milliseconds patience) {
  switch (silence) {
    case HelperProcess::Silence::died:
      return fmt::format("{}: icecore-gpu, which made the call, has ended", name_of(call));
    case HelperProcess::Silence::too_late:
      return fmt::format("{}: no answer from the driver within {} ms{}", name_of(call),
                         patience.count(),
                         call == Call::checkpoint
                             ? "; before 610 memory that processes share (CUDA IPC, NCCL) is known "
                               "to do that"
                             : "");
    case HelperProcess::Silence::cancelled:
      break;
  }
  return fmt::format("{}: cancelled", name_of(call));
}

Problem problem_of(const Answer& answer) {
  if (answer.problem[0] != '\0') return {answer.problem, "install the NVIDIA driver"};
  switch (answer.result) {
    case Result::success:
      break;
    case Result::stub_library:
      return {"libcuda.so.1 is the stub of the CUDA toolkit, not a driver",
              "take the toolkit's lib/stubs out of LD_LIBRARY_PATH"};
    case Result::no_device:
      return {"the driver finds no GPU", "give this machine or container its GPU devices"};
    default:
      return {describe(Call::hello, answer), ""};
  }
  if (answer.can_checkpoint == 0)
    return {fmt::format("the driver, of CUDA {}, cannot checkpoint processes",
                        version_text(answer.driver_version)),
            "install driver 570 (CUDA 12.8) or later"};
  return {};
}

int nibble(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::string uuid_text(const Uuid& uuid) {
  std::string text = "GPU-";
  for (std::size_t i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", uuid.bytes[i]);
  }
  return text;
}

std::optional<Uuid> parse_uuid(const std::string& text) {
  Uuid uuid{};
  std::size_t digits = 0;
  for (const char c : std::string_view{text}.substr(text.starts_with("GPU-") ? 4 : 0)) {
    if (c == '-') continue;
    const int value = nibble(c);
    if (value < 0 || digits == 32) return {};
    std::uint8_t& byte = uuid.bytes[digits++ / 2];
    byte = static_cast<std::uint8_t>(byte << 4 | value);
  }
  if (digits != 32) return {};
  return uuid;
}

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

// ---- the driver -------------------------------------------------------------------------------

Problem ProcessCheckpoint::load(DriverHere& driver) {
  const Answer answer = call(Call::hello, {}, kToLoad);
  driver.api = answer.driver_version;
  driver.release = sys::find_gpu().driver;
  driver.devices.assign(answer.devices, answer.devices + answer.device_count);
  for (const DeviceInfo& device : driver.devices) device_bytes_ += device.total_bytes;
  return problem_of(answer);
}

Problem ProcessCheckpoint::measure(DriverHere& driver) {
  const Answer answer = call(Call::free_memory, {}, kToLoad);
  driver.devices.assign(answer.devices, answer.devices + answer.device_count);
  return problem_of(answer);
}

Answer ProcessCheckpoint::call(Call what, const ThreadGate& gate, milliseconds patience,
                               std::span<const GpuPair> pairs) {
  Request request{};
  request.call = what;
  request.pid = pid_;
  request.timeout_ms =
      static_cast<std::uint32_t>(std::max<milliseconds::rep>(patience_.work.count(), 1));
  request.pair_count = static_cast<std::uint32_t>(std::min(pairs.size(), kMaxDevices));
  std::copy_n(pairs.begin(), request.pair_count, request.pairs);
  const auto answer = gate.with_running_thread([&](auto meanwhile) {
    return helper_.call(request, {.patience = patience, .meanwhile = meanwhile, .stop = stop_});
  });
  if (answer) return *answer;
  const bool cancelled = helper_.why() == HelperProcess::Silence::cancelled;
  throw Error{cancelled ? Errc::cancelled : Errc::unsupported,
              describe(what, helper_.why(), patience)};
}

void ProcessCheckpoint::perform(Call what, const ThreadGate& gate, milliseconds patience,
                                std::span<const GpuPair> pairs) {
  const Answer answer = call(what, gate, patience, pairs);
  if (answer.result != Result::success) throw Error{Errc::unsupported, describe(what, answer)};
}

// ---- one process --------------------------------------------------------------------------------

bool ProcessCheckpoint::attach(pid_t pid) {
  pid_ = pid;
  const Answer thread = call(Call::thread_id, {}, kShort);
  if (thread.result != Result::success) return false;
  restore_thread_ = thread.value;
  found_ = ask_state({});
  return true;
}

void ProcessCheckpoint::attach(pid_t pid, pid_t restore_thread, ProcessState found, bool is_saved) {
  pid_ = pid;
  restore_thread_ = restore_thread;
  found_ = found;
  touched_ = is_saved;
}

ProcessState ProcessCheckpoint::ask_state(const ThreadGate& gate) {
  const Answer answer = call(Call::state, gate, kShort);
  if (answer.result != Result::success)
    throw Error{Errc::unsupported, describe(Call::state, answer)};
  return static_cast<ProcessState>(answer.value);
}

/// Half of what slow hosts were seen to do, over all that the devices could hold.
milliseconds ProcessCheckpoint::time_to_move() const {
  constexpr std::uint64_t kBytesPerMillisecond = 500'000;
  if (patience_.move.count() != 0) return patience_.move;
  return seconds{30} +
         milliseconds{static_cast<milliseconds::rep>(device_bytes_ / kBytesPerMillisecond)};
}

void ProcessCheckpoint::quiesce() {
  if (found_ != ProcessState::running) return;
  touched_ = true;
  perform(Call::lock, {}, patience_.work + kShort);
}

void ProcessCheckpoint::save(const ThreadGate& gate) {
  if (found_ == ProcessState::checkpointed) return;
  touched_ = true;
  perform(Call::checkpoint, gate, time_to_move());
}

void ProcessCheckpoint::restore(const ThreadGate& gate, std::span<const GpuPair> pairs) {
  if (found_ == ProcessState::checkpointed) return;
  perform(Call::restore, gate, time_to_move(), pairs);
}

void ProcessCheckpoint::resume(const ThreadGate& gate) {
  if (found_ == ProcessState::running) perform(Call::unlock, gate, kShort);
  touched_ = false;
}

/// One step nearer to the state that was found.  Asks for the state each time: a call that nobody
/// waited for may have been carried out.
void ProcessCheckpoint::step_back(const ThreadGate& gate) {
  switch (const ProcessState state = ask_state(gate)) {
    case ProcessState::running:
      touched_ = false;
      return;
    case ProcessState::locked:
      if (found_ == ProcessState::running) return perform(Call::unlock, gate, kShort);
      touched_ = false;
      return;
    case ProcessState::checkpointed:
      if (found_ != ProcessState::checkpointed) return perform(Call::restore, gate, time_to_move());
      touched_ = false;
      return;
    default:
      throw Error{Errc::unsupported, fmt::format("the driver says that the process is in state {}",
                                                 static_cast<int>(state))};
  }
}

std::string ProcessCheckpoint::roll_back(const ThreadGate& gate) noexcept {
  constexpr int kAttempts = 2;
  stop_ = {};  // whoever cancels wants this all the more
  std::string reason;
  for (int failed = 0; touched_ && failed < kAttempts;) {
    try {
      step_back(gate);
    } catch (const std::exception& error) {
      if (failed++ == 0) reason = error.what();
    }
  }
  return touched_ ? reason : std::string{};
}

void ProcessCheckpoint::leave() noexcept {
  touched_ = false;
  if (!helper_.alive()) return;
  try {
    call(Call::leave, {}, kShort);
  } catch (const std::exception&) {
    // It has ended, and with it what it would have undone.
  }
}

}  // namespace icecore::gpu
