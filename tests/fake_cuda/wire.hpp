// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the test driver and its daemon, which alone holds device memory, say to each other.

#include <cstdint>

namespace fake {

enum class Order : std::uint32_t {
  devices,   // all of them
  allocate,  // `size` bytes on `device`: an id
  free,      // `id`
  read,      // `size` bytes of `id` at `offset` into the client's memory at `address`
  write,     // the other way
  fill8,     // with `value`
  fill32,
  add1,  // to each 32-bit number
  copy,  // to `id` from `other` at `value`
  info,  // of `device`: free and total bytes
};

struct OrderMessage {
  Order order = Order::devices;
  std::uint32_t device = 0;
  std::uint64_t id = 0, other = 0, offset = 0, size = 0, address = 0, value = 0;
};

constexpr int kMaxDevices = 8;

struct DeviceDescription {
  unsigned char uuid[16];
  char name[32];
  std::int32_t major, minor;
  std::uint64_t total;
};

struct ReplyMessage {
  std::int32_t result;  // a CUresult
  std::uint32_t count;
  std::uint64_t id, free, total;
  DeviceDescription devices[kMaxDevices];
};

}  // namespace fake
