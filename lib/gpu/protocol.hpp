// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the library and its helper say to each other: one message each way, a call and its result.

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "gpu/cuda.hpp"

namespace icecore::gpu {

constexpr std::size_t kMaxDevices = 16;

enum class Call : std::int32_t {
  hello,      ///< loads the driver
  thread_id,  ///< cuCheckpointProcess…
  state,
  lock,
  checkpoint,
  restore,
  unlock,
  free_memory,  ///< of every device
  leave,        ///< undo nothing of this process
};

struct Request {
  Call call;
  std::int32_t pid;
  std::uint32_t timeout_ms;
  std::uint32_t pair_count;
  GpuPair pairs[kMaxDevices];
};

struct DeviceInfo {
  Uuid uuid;
  char name[64];
  std::uint32_t compute_capability;  ///< 10 * major + minor
  std::uint32_t unused;
  std::uint64_t total_bytes;
  std::uint64_t free_bytes;  ///< free_memory only
};

struct Answer {
  Result result;
  std::int32_t value;           ///< thread id or ProcessState
  std::int32_t driver_version;  ///< cuDriverGetVersion
  std::int32_t can_checkpoint;  ///< the six calls are there
  std::uint32_t device_count;
  char error_name[48];  ///< of `result`
  char problem[200];    ///< why the driver could not be loaded, or empty
  DeviceInfo devices[kMaxDevices];
};
static_assert(sizeof(Answer) < 4096, "one message");

template <class Message>
std::string to_bytes(const Message& message) {
  static_assert(std::is_trivially_copyable_v<Message>);
  return {reinterpret_cast<const char*>(&message), sizeof message};
}

template <class Message>
std::optional<Message> from_bytes(std::string_view bytes) {
  Message message;
  if (bytes.size() != sizeof message) return std::nullopt;
  std::memcpy(&message, bytes.data(), sizeof message);
  return message;
}

}  // namespace icecore::gpu
