// SPDX-License-Identifier: Apache-2.0
#include "gpu/helper.hpp"

#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "gpu/driver.hpp"
#include "gpu/protocol.hpp"
#include "icecore/error.hpp"
#include "sys/files.hpp"

namespace icecore::gpu {
namespace {

constexpr int kSocket = 3;

template <std::size_t Size>
void copy_text(char (&to)[Size], const char* text) {
  std::strncpy(to, text, Size - 1);
  to[Size - 1] = '\0';
}

class Helper {
 public:
  Answer answer(const Request& request) {
    Answer answer{};
    if (!driver_) answer.result = load(answer);
    if (driver_ && initialised_) answer.result = call(request, answer);
    describe(answer);
    return answer;
  }

  /// The library is gone.
  void undo() noexcept {
    if (!driver_ || !driver_->can_checkpoint()) return;
    if (checkpointed_ != 0) {
      RestoreArguments arguments{};
      driver_->restore(checkpointed_, &arguments);
    }
    if (locked_ != 0) {
      UnlockArguments arguments{};
      driver_->unlock(locked_, &arguments);
    }
  }

 private:
  Result load(Answer& answer) {
    const char* const library = ::secure_getenv("ICECORE_LIBCUDA");
    try {
      driver_.emplace(library != nullptr ? library : "libcuda.so.1");
    } catch (const std::exception& error) {
      copy_text(answer.problem, error.what());
      return Result::not_found;
    }
    // Also for Restore, which wants it of its caller unless the driver is kept loaded otherwise.
    const Result result = driver_->init(0);
    initialised_ = result == Result::success;
    return result;
  }

  void describe(Answer& answer) const {
    if (!driver_) return;
    const char* name = nullptr;
    if (driver_->error_name != nullptr &&
        driver_->error_name(answer.result, &name) == Result::success && name != nullptr)
      copy_text(answer.error_name, name);
    driver_->driver_version(&answer.driver_version);
    answer.can_checkpoint = driver_->can_checkpoint() ? 1 : 0;
  }

  Result call(const Request& request, Answer& answer) {
    const int pid = request.pid;
    if (request.call == Call::hello) return list_devices(answer, false);
    if (request.call == Call::free_memory) return list_devices(answer, true);
    if (request.call == Call::leave) {
      locked_ = checkpointed_ = 0;
      return Result::success;
    }
    if (!driver_->can_checkpoint()) return Result::not_found;
    switch (request.call) {
      case Call::thread_id:
        return driver_->restore_thread(pid, &answer.value);
      case Call::state:
        return state(pid, answer);
      case Call::lock: {
        LockArguments arguments{};
        arguments.timeout_ms = request.timeout_ms;
        return note(driver_->lock(pid, &arguments), locked_, pid);
      }
      case Call::checkpoint: {
        CheckpointArguments arguments{};
        return note(driver_->checkpoint(pid, &arguments), checkpointed_, pid);
      }
      case Call::restore:
        return note(restore(request), checkpointed_, 0);
      case Call::unlock: {
        UnlockArguments arguments{};
        return note(driver_->unlock(pid, &arguments), locked_, 0);
      }
      default:
        return Result::invalid_value;
    }
  }

  static Result note(Result result, int& what, int pid) {
    if (result == Result::success) what = pid;
    return result;
  }

  Result state(int pid, Answer& answer) const {
    ProcessState state{};
    const Result result = driver_->state(pid, &state);
    answer.value = static_cast<std::int32_t>(state);
    return result;
  }

  Result restore(const Request& request) const {
    GpuPair pairs[kMaxDevices];
    std::memcpy(pairs, request.pairs, sizeof pairs);
    RestoreArguments arguments{};
    arguments.pair_count = std::min<std::uint32_t>(request.pair_count, kMaxDevices);
    arguments.pairs = arguments.pair_count == 0 ? nullptr : pairs;
    return driver_->restore(request.pid, &arguments);
  }

  Result list_devices(Answer& answer, bool with_free_memory) const {
    int count = 0;
    if (const Result result = driver_->device_count(&count); result != Result::success)
      return result;
    count = std::min(count, static_cast<int>(kMaxDevices));
    for (int i = 0; i < count; ++i)
      if (const Result result = describe_device(i, answer.devices[i], with_free_memory);
          result != Result::success)
        return result;
    answer.device_count = static_cast<std::uint32_t>(count);
    return Result::success;
  }

  Result describe_device(int ordinal, DeviceInfo& info, bool with_free_memory) const {
    Device device{};
    int major = 0, minor = 0;
    std::size_t total = 0;
    Result result = driver_->device(&device, ordinal);
    const auto then = [&](auto call) {
      if (result == Result::success) result = call();
    };
    then([&] { return driver_->device_name(info.name, sizeof info.name - 1, device); });
    then([&] { return driver_->device_attribute(&major, kComputeCapabilityMajor, device); });
    then([&] { return driver_->device_attribute(&minor, kComputeCapabilityMinor, device); });
    then([&] { return driver_->total_memory(&total, device); });
    if (driver_->device_uuid != nullptr)
      then([&] { return driver_->device_uuid(&info.uuid, device); });
    info.compute_capability = static_cast<std::uint32_t>(10 * major + minor);
    info.total_bytes = total;
    if (with_free_memory) then([&] { return measure_free_memory(device, info); });
    return result;
  }

  /// Only a context knows it.
  Result measure_free_memory(Device device, DeviceInfo& info) const {
    if (driver_->retain_context == nullptr || driver_->release_context == nullptr ||
        driver_->set_context == nullptr || driver_->memory_info == nullptr)
      return Result::not_found;
    Context context{};
    Result result = driver_->retain_context(&context, device);
    if (result != Result::success) return result;
    std::size_t free = 0, total = 0;
    result = driver_->set_context(context);
    if (result == Result::success) result = driver_->memory_info(&free, &total);
    driver_->set_context(nullptr);
    driver_->release_context(device);
    info.free_bytes = free;
    return result;
  }

  std::optional<Driver> driver_;
  bool initialised_ = false;
  int locked_ = 0;        // the process that we have locked
  int checkpointed_ = 0;  // the one whose memory we have moved
};

}  // namespace

int run_helper() noexcept {
  // It ends when nobody needs it any more, not when a terminal does.
  for (const int signal : {SIGHUP, SIGINT, SIGTERM, SIGPIPE}) ::signal(signal, SIG_IGN);
  const sys::Fd socket{kSocket};
  Helper helper;
  try {
    while (const auto bytes = sys::receive_text(socket)) {
      const auto request = from_bytes<Request>(*bytes);
      if (!request) break;
      sys::send_text(socket, to_bytes(helper.answer(*request)));
    }
  } catch (const std::exception&) {
    // The library was killed with an answer unread: an error here, not an end.
  }
  helper.undo();
  return 0;
}

}  // namespace icecore::gpu
