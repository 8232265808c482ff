// SPDX-License-Identifier: Apache-2.0
//
// Memory of the test driver: what a process has in gpud, and which device addresses lead there.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>

#include "process.hpp"
#include "streams.hpp"

namespace fake {
namespace {

std::map<void*, std::size_t> pinned;

// ---- addresses --------------------------------------------------------------------------------

std::uint64_t round_up(std::uint64_t size) {
  return (size + kGranularity - 1) / kGranularity * kGranularity;
}

/// At `hint` if that is free, else behind everything.
Range* add_range(Range::Kind kind, std::uint64_t size, std::uint64_t hint) {
  const auto taken = [&](std::uint64_t start) {
    return std::any_of(self.ranges, self.ranges + kMaxMemory, [&](const Range& r) {
      return r.kind != Range::Kind::none && overlaps(start, size, r.start, r.size);
    });
  };
  const bool usable = hint % kGranularity == 0 && hint >= self.window &&
                      hint + size <= self.window + kWindow && !taken(hint);
  const std::uint64_t start = usable ? hint : self.next_address;
  if (start + size > self.window + kWindow || taken(start)) return nullptr;
  for (Range& range : self.ranges) {
    if (range.kind != Range::Kind::none) continue;
    range = {kind, start, size};
    if (!usable) self.next_address += size;
    return &range;
  }
  return nullptr;
}

Range* find_range(Range::Kind kind, std::uint64_t start) {
  for (Range& range : self.ranges)
    if (range.kind == kind && range.start == start) return &range;
  return nullptr;
}

struct Place {
  std::uint64_t id, offset;
  bool accessible;
};

/// Where [address, address + size) lies in gpud, if all of it lies in one piece.
bool find_place(DeviceAddress address, std::uint64_t size, Place& place) {
  for (const Map& map : self.maps)
    if (map.used && address >= map.start && address - map.start <= map.size &&
        size <= map.size - (address - map.start)) {
      place = {self.physical[map.physical].id, address - map.start, map.accessible};
      return true;
    }
  return false;
}

Result place_of(DeviceAddress address, std::uint64_t size, Place& place) {
  const std::lock_guard lock{tables};
  if (!find_place(address, size, place)) return Result::invalid_value;
  if (!place.accessible) {
    self.sticky = static_cast<int>(Result::illegal_address);
    return Result::illegal_address;
  }
  return Result::success;
}

Result add_physical(std::uint64_t size, std::uint32_t device, int& index) {
  for (index = 0; index < kMaxMemory && self.physical[index].used; ++index) {
  }
  if (index == kMaxMemory) return Result::out_of_memory;
  ReplyMessage reply{};
  const Result result = order({.order = Order::allocate, .device = device, .size = size}, reply);
  if (result == Result::success) self.physical[index] = {true, reply.id, size, device, {}};
  return result;
}

Result release_physical(int index) {
  Physical& physical = self.physical[index];
  physical.used = false;
  return order({.order = Order::free, .id = physical.id});
}

Map* add_map(std::uint64_t start, std::uint64_t size, int physical, bool accessible) {
  for (Map& map : self.maps) {
    if (map.used) continue;
    map = {true, accessible, start, size, physical};
    return &map;
  }
  return nullptr;
}

Result transfer(Order what, DeviceAddress device, std::uint64_t host, std::uint64_t size) {
  Place place;
  if (const Result r = place_of(device, size, place); r != Result::success) return r;
  return order(
      {.order = what, .id = place.id, .offset = place.offset, .size = size, .address = host});
}

}  // namespace

Result allocate(Range::Kind kind, std::uint64_t size, DeviceAddress* address) {
  const std::lock_guard lock{tables};
  if (address == nullptr || size == 0) return Result::invalid_value;
  int physical = 0;
  if (const Result r = add_physical(size, static_cast<std::uint32_t>(current_device), physical);
      r != Result::success)
    return r;
  Range* const range = add_range(kind, round_up(size), 0);
  if (range == nullptr || add_map(range->start, size, physical, true) == nullptr)
    return Result::out_of_memory;
  *address = range->start;
  return Result::success;
}

Result change(Order what, DeviceAddress device, std::uint64_t size, std::uint64_t value) {
  Place place;
  if (const Result r = place_of(device, size, place); r != Result::success) return r;
  return order(
      {.order = what, .id = place.id, .offset = place.offset, .size = size, .value = value});
}

}  // namespace fake

using namespace fake;

// ---- memory -----------------------------------------------------------------------------------

EXPORT Result cuMemAlloc_v2(DeviceAddress* address, std::size_t size) {
  return in_context([&] { return allocate(Range::Kind::malloc, size, address); });
}

EXPORT Result cuMemFree_v2(DeviceAddress address) {
  return in_context([&] {
    const std::lock_guard lock{tables};
    Range* const range = find_range(Range::Kind::malloc, address);
    if (range == nullptr) return Result::invalid_value;
    range->kind = Range::Kind::none;
    for (Map& map : self.maps)
      if (map.used && map.start == address) {
        map.used = false;
        return release_physical(map.physical);
      }
    return Result::invalid_value;
  });
}

EXPORT Result cuMemGetAddressRange_v2(DeviceAddress* base, std::size_t* size,
                                      DeviceAddress address) {
  return in_context([&] {
    const std::lock_guard lock{tables};
    for (const Map& map : self.maps)
      if (map.used && address >= map.start && address - map.start < map.size) {
        if (base != nullptr) *base = map.start;
        if (size != nullptr) *size = map.size;
        return Result::success;
      }
    return Result::invalid_value;
  });
}

EXPORT Result cuMemcpyHtoD_v2(DeviceAddress to, const void* from, std::size_t size) {
  return in_context(
      [&] { return transfer(Order::write, to, reinterpret_cast<std::uint64_t>(from), size); });
}

EXPORT Result cuMemcpyDtoH_v2(void* to, DeviceAddress from, std::size_t size) {
  return in_context(
      [&] { return transfer(Order::read, from, reinterpret_cast<std::uint64_t>(to), size); });
}

EXPORT Result cuMemcpyDtoD_v2(DeviceAddress to, DeviceAddress from, std::size_t size) {
  return in_context([&] {
    Place source, target;
    if (const Result r = place_of(from, size, source); r != Result::success) return r;
    if (const Result r = place_of(to, size, target); r != Result::success) return r;
    return order({.order = Order::copy,
                  .id = target.id,
                  .other = source.id,
                  .offset = target.offset,
                  .size = size,
                  .value = source.offset});
  });
}

EXPORT Result cuMemcpyHtoDAsync_v2(DeviceAddress to, const void* from, std::size_t size,
                                   Stream* stream) {
  return in_context([&] {
    return run_on(stream, [=] {
      return transfer(Order::write, to, reinterpret_cast<std::uint64_t>(from), size);
    });
  });
}

EXPORT Result cuMemcpyDtoHAsync_v2(void* to, DeviceAddress from, std::size_t size, Stream* stream) {
  return in_context([&] {
    return run_on(stream, [=] {
      if (std::getenv("FAKE_NO_COPIES_OUT") != nullptr) return Result::success;
      return transfer(Order::read, from, reinterpret_cast<std::uint64_t>(to), size);
    });
  });
}

EXPORT Result cuMemsetD8_v2(DeviceAddress address, unsigned char value, std::size_t count) {
  return in_context([&] { return change(Order::fill8, address, count, value); });
}

EXPORT Result cuMemsetD32_v2(DeviceAddress address, unsigned value, std::size_t count) {
  return in_context([&] { return change(Order::fill32, address, count * 4, value); });
}

EXPORT Result cuMemsetD8Async(DeviceAddress address, unsigned char value, std::size_t count,
                              Stream* stream) {
  return in_context(
      [&] { return run_on(stream, [=] { return change(Order::fill8, address, count, value); }); });
}

/// Pins nothing, but knows what it should have pinned.
EXPORT Result cuMemHostRegister_v2(void* memory, std::size_t size, unsigned flags) {
  return in_context([&] {
    const std::lock_guard lock{tables};
    if (memory == nullptr || size == 0 || (flags & ~1U) != 0) return Result::invalid_value;
    if (!pinned.emplace(memory, size).second) return static_cast<Result>(712);  // already
    return Result::success;
  });
}

EXPORT Result cuMemHostUnregister(void* memory) {
  return in_context([&] {
    const std::lock_guard lock{tables};
    return pinned.erase(memory) == 1 ? Result::success : static_cast<Result>(713);
  });
}

/// Each one maps the device once more, by which it can be told from outside.
EXPORT Result cuMemAllocManaged(DeviceAddress* address, std::size_t size, unsigned) {
  return in_context([&] {
    self.unsupported = static_cast<int>(Result::not_supported);
    ::mmap(nullptr, 4096, PROT_NONE, MAP_SHARED, self.files[kUvmFile].number, 0);
    return allocate(Range::Kind::malloc, size, address);
  });
}

EXPORT Result cuIpcGetMemHandle(void* handle, DeviceAddress address) {
  return in_context([&] {
    Place place;
    if (handle == nullptr) return Result::invalid_value;
    const Result result = place_of(address, 1, place);
    if (result == Result::success) self.unsupported = static_cast<int>(Result::not_supported);
    return result;
  });
}

// ---- virtual memory management ----------------------------------------------------------------

EXPORT Result cuMemGetAllocationGranularity(std::size_t* size, const void* properties, int) {
  if (!initialised) return Result::not_initialized;
  if (size == nullptr || properties == nullptr) return Result::invalid_value;
  *size = kGranularity;
  return Result::success;
}

EXPORT Result cuMemAddressReserve(DeviceAddress* address, std::size_t size, std::size_t,
                                  DeviceAddress hint, unsigned long long flags) {
  return gated([&] {
    const std::lock_guard lock{tables};
    if (address == nullptr || size == 0 || size % kGranularity != 0 || flags != 0)
      return Result::invalid_value;
    const Range* const range = add_range(Range::Kind::reserved, size, hint);
    if (range == nullptr) return Result::out_of_memory;
    *address = range->start;
    return Result::success;
  });
}

EXPORT Result cuMemAddressFree(DeviceAddress address, std::size_t size) {
  return gated([&] {
    const std::lock_guard lock{tables};
    Range* const range = find_range(Range::Kind::reserved, address);
    if (range == nullptr || range->size != size) return Result::invalid_value;
    range->kind = Range::Kind::none;
    return Result::success;
  });
}

EXPORT Result cuMemCreate(unsigned long long* handle, std::size_t size, const void* properties,
                          unsigned long long flags) {
  return gated([&] {
    const std::lock_guard lock{tables};
    if (handle == nullptr || properties == nullptr || flags != 0 || size == 0 ||
        size % kGranularity != 0)
      return Result::invalid_value;
    int what[4];  // type, handle types, kind of place, device
    std::memcpy(what, properties, sizeof what);
    if (what[0] != 1 || what[2] != 1 || what[3] < 0 || what[3] >= self.device_count)
      return Result::invalid_value;
    int index = 0;
    const Result result = add_physical(size, static_cast<std::uint32_t>(what[3]), index);
    if (result != Result::success) return result;
    std::memcpy(self.physical[index].properties, properties,
                sizeof self.physical[index].properties);
    *handle = static_cast<unsigned long long>(index) + 1;
    return result;
  });
}

EXPORT Result cuMemGetAllocationPropertiesFromHandle(void* properties, unsigned long long handle) {
  return gated([&] {
    const std::lock_guard lock{tables};
    if (properties == nullptr || handle == 0 || handle > kMaxMemory ||
        !self.physical[handle - 1].used)
      return Result::invalid_value;
    const Physical& physical = self.physical[handle - 1];
    std::memcpy(properties, physical.properties, sizeof physical.properties);
    return Result::success;
  });
}

EXPORT Result cuMemRelease(unsigned long long handle) {
  return gated([&] {
    const std::lock_guard lock{tables};
    if (handle == 0 || handle > kMaxMemory || !self.physical[handle - 1].used)
      return Result::invalid_value;
    return release_physical(static_cast<int>(handle) - 1);
  });
}

EXPORT Result cuMemMap(DeviceAddress address, std::size_t size, std::size_t offset,
                       unsigned long long handle, unsigned long long flags) {
  return gated([&] {
    const std::lock_guard lock{tables};
    if (offset != 0 || flags != 0 || handle == 0 || handle > kMaxMemory ||
        !self.physical[handle - 1].used || self.physical[handle - 1].size != size)
      return Result::invalid_value;
    const bool reserved = std::any_of(self.ranges, self.ranges + kMaxMemory, [&](const Range& r) {
      return r.kind == Range::Kind::reserved && address >= r.start &&
             address + size <= r.start + r.size;
    });
    const bool taken = std::any_of(self.maps, self.maps + kMaxMemory, [&](const Map& map) {
      return map.used && overlaps(address, size, map.start, map.size);
    });
    if (!reserved || taken) return Result::invalid_value;
    return add_map(address, size, static_cast<int>(handle) - 1, false) != nullptr
               ? Result::success
               : Result::out_of_memory;
  });
}

EXPORT Result cuMemUnmap(DeviceAddress address, std::size_t size) {
  return gated([&] {
    const std::lock_guard lock{tables};
    for (Map& map : self.maps)
      if (map.used && map.start == address && map.size == size) {
        map.used = false;
        return Result::success;
      }
    return Result::invalid_value;
  });
}

EXPORT Result cuMemGetAccess(unsigned long long* flags, const int* location,
                             DeviceAddress address) {
  return gated([&] {
    const std::lock_guard lock{tables};
    if (flags == nullptr || location == nullptr || location[0] != 1) return Result::invalid_value;
    for (const Map& map : self.maps) {
      if (!map.used || address < map.start || address - map.start >= map.size) continue;
      const bool its_own = static_cast<int>(self.physical[map.physical].device) == location[1];
      *flags = map.accessible && its_own ? 3 : 0;
      return Result::success;
    }
    return Result::invalid_value;
  });
}

EXPORT Result cuMemSetAccess(DeviceAddress address, std::size_t size, const void* descriptions,
                             std::size_t count) {
  return gated([&] {
    const std::lock_guard lock{tables};
    if (descriptions == nullptr || count == 0) return Result::invalid_value;
    for (Map& map : self.maps)
      if (map.used && map.start == address && map.size == size) {
        map.accessible = true;
        return Result::success;
      }
    return Result::invalid_value;
  });
}
