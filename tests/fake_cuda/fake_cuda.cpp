// SPDX-License-Identifier: Apache-2.0
//
// A libcuda.so.1 for tests: as strict as the documentation of the CUDA Driver API (docs/gpu.md has
// what it is made after), with device memory in another process (gpud.cpp).
//
// Like the real library it is two in one.  In a process that uses CUDA: a gate that every call
// passes, streams, memory, and the restore thread, which does what a controller asks through two
// pipes.  In a controller: the six calls cuCheckpointProcess…, which find those pipes in the other
// process.
//
// Environment, read at cuInit:
//   FAKE_CUDA_DIR   folder with the socket of gpud ("gpud") and the devices ("nvidia0" …)
//   FAKE_VERSION    cuDriverGetVersion, by default 13000
//   FAKE_DRIVER     "stub": cuInit gives 34; "no_device": 100
//   FAKE_NO_PERSISTENCE  Restore wants cuInit of its caller
//   FAKE_NO_COPIES_OUT   cuMemcpyDtoHAsync copies nothing
// and the file FAKE_CUDA_DIR/inject, read by the restore thread at each request, of lines
//   lock|checkpoint|restore|unlock|state  slow MS | fail CODE | hang | die | skip
// where `checkpoint skip` claims to have saved what it has not, and `restore skip` forgets reserved
// addresses that lead nowhere.  Whoever is slow or hangs makes the file "began" first, for the test
// to wait for.

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "gpu/cuda.hpp"
#include "raw.hpp"
#include "wire.hpp"

using icecore::gpu::CheckpointArguments;
using icecore::gpu::Device;
using icecore::gpu::DeviceAddress;
using icecore::gpu::GpuPair;
using icecore::gpu::LockArguments;
using icecore::gpu::ProcessState;
using icecore::gpu::RestoreArguments;
using icecore::gpu::Result;
using icecore::gpu::UnlockArguments;
using icecore::gpu::Uuid;

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace fake {
namespace {

constexpr std::uint64_t kMagic = 0x6563'616b'6564'7563;
constexpr std::uint64_t kGranularity = std::uint64_t{2} << 20;
constexpr std::uint64_t kWindow = std::uint64_t{64} << 30;
constexpr int kMaxMemory = 1024;
constexpr const char* kThreadName = "cuda00000000001";

// ---- what the process has -----------------------------------------------------------------------

/// Device memory in gpud.
struct Physical {
  bool used;
  std::uint64_t id, size;
  std::uint32_t device;
  unsigned char properties[32];  // CUmemAllocationProp, of cuMemCreate
};

/// A range of device addresses.
struct Range {
  enum class Kind { none, reserved, malloc, module };
  Kind kind;
  std::uint64_t start, size;
};

/// Where a range leads.
struct Map {
  bool used, accessible;
  std::uint64_t start, size;
  int physical;
};

struct DeviceFile {
  char path[108];
  int number;
};

struct Request {
  std::uint64_t sequence;
  std::uint32_t operation;  // as in kOperations
  std::uint32_t argument;
  GpuPair pairs[kMaxDevices];
};

struct Response {
  std::uint64_t sequence;
  std::int32_t result;
  std::int32_t value;
};

enum Operation : std::uint32_t { kState, kLock, kCheckpoint, kRestore, kUnlock };
constexpr const char* kOperations[] = {"state", "lock", "checkpoint", "restore", "unlock"};

/// Static and without constructors: a controller reads the beginning from outside, the restore
/// thread must not allocate.
struct Process {
  // A controller looks here.
  std::uint64_t magic;
  std::int32_t restore_thread;
  std::int32_t request_end;  // a descriptor of this process
  std::int32_t response_end;

  std::int32_t request_source, response_sink;
  std::atomic<std::uint32_t> state;
  std::atomic<std::uint32_t> gate;  // 1: closed
  std::atomic<std::uint32_t> inflight;
  std::atomic<std::uint32_t> has_begun;  // 1: the restore thread
  std::atomic<std::uint32_t> queued;     // work and callbacks of all streams
  std::atomic<std::int32_t> sticky;      // an error that every later call gives
  std::atomic<bool> unsupported;         // uses what cannot be checkpointed
  bool restore_failed;

  int socket;
  DeviceFile files[4];
  std::uint64_t window, device_page, managed_page;
  std::uint64_t next_address;
  std::uint64_t carrier, carrier_size;
  DeviceDescription devices[kMaxDevices];
  int device_count;
  Physical physical[kMaxMemory];
  Range ranges[kMaxMemory];
  Map maps[kMaxMemory];
  char folder[96];
};
Process self;

std::mutex tables;  // of all but the restore thread
std::map<void*, std::size_t> pinned;
std::mutex wire;
bool initialised = false;  // of this process image: a controller needs it for Restore
thread_local int current_device = -1;

// ---- gpud
// -----------------------------------------------------------------------------------------

/// By raw calls, for the restore thread too.
int connect_daemon() {
  ::sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::size_t at = 0;
  for (const char* c = self.folder; *c != '\0'; ++c) address.sun_path[at++] = *c;
  for (const char* c = "/gpud"; *c != '\0'; ++c) address.sun_path[at++] = *c;
  const long socket = raw(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return -1;
  if (raw(SYS_connect, socket, as_long(&address), sizeof address) != 0) {
    raw(SYS_close, socket);
    return -1;
  }
  return static_cast<int>(socket);
}

std::int32_t order_raw(const OrderMessage& order, ReplyMessage& reply) {
  if (raw(SYS_sendto, self.socket, as_long(&order), sizeof order, MSG_NOSIGNAL) != sizeof order)
    return 999;
  std::size_t got = 0;
  while (got < sizeof reply) {
    const long count = raw(SYS_read, self.socket, as_long(reinterpret_cast<char*>(&reply) + got),
                           static_cast<long>(sizeof reply - got));
    if (count <= 0) return 999;
    got += static_cast<std::size_t>(count);
  }
  return reply.result;
}

Result order(const OrderMessage& message, ReplyMessage& reply) {
  const std::lock_guard lock{wire};
  return static_cast<Result>(order_raw(message, reply));
}

Result order(const OrderMessage& message) {
  ReplyMessage reply{};
  return order(message, reply);
}

// ---- the gate
// ------------------------------------------------------------------------------------

/// Every call that touches a GPU holds one; it waits while the process is locked.
class Pass {
 public:
  Pass() {
    for (;;) {
      self.inflight.fetch_add(1);
      if (self.gate.load() == 0) return;
      self.inflight.fetch_sub(1);
      futex_wait(self.gate, 1);
    }
  }
  ~Pass() { self.inflight.fetch_sub(1); }
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;
};

template <class Body>
Result gated(Body body) {
  if (!initialised) return Result::not_initialized;
  const Pass pass;
  if (const auto sticky = self.sticky.load(); sticky != 0) return static_cast<Result>(sticky);
  return body();
}

/// Those that also want a context.
template <class Body>
Result in_context(Body body) {
  return gated([&] { return current_device < 0 ? Result::invalid_context : body(); });
}

// ---- addresses
// -----------------------------------------------------------------------------------

std::uint64_t round_up(std::uint64_t size) {
  return (size + kGranularity - 1) / kGranularity * kGranularity;
}

bool overlaps(std::uint64_t a, std::uint64_t a_size, std::uint64_t b, std::uint64_t b_size) {
  return a < b + b_size && b < a + a_size;
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

// ---- copies and kernels
// --------------------------------------------------------------------------

Result transfer(Order what, DeviceAddress device, std::uint64_t host, std::uint64_t size) {
  Place place;
  if (const Result r = place_of(device, size, place); r != Result::success) return r;
  return order(
      {.order = what, .id = place.id, .offset = place.offset, .size = size, .address = host});
}

Result change(Order what, DeviceAddress device, std::uint64_t size, std::uint64_t value) {
  Place place;
  if (const Result r = place_of(device, size, place); r != Result::success) return r;
  return order(
      {.order = what, .id = place.id, .offset = place.offset, .size = size, .value = value});
}

/// A queue and a thread that empties it: what is asynchronous really happens later.
struct Stream {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<Result()>> work;
  bool busy = false, ending = false;
  std::thread thread;

  Stream() : thread{[this] { run(); }} {}
  ~Stream() {
    {
      const std::lock_guard lock{mutex};
      ending = true;
      changed.notify_all();
    }
    thread.join();
  }

  Result add(std::function<Result()> job) {
    self.queued.fetch_add(1);
    const std::lock_guard lock{mutex};
    work.push_back(std::move(job));
    changed.notify_all();
    return Result::success;
  }

  bool idle() {
    const std::lock_guard lock{mutex};
    return work.empty() && !busy;
  }

  void synchronize() {
    std::unique_lock lock{mutex};
    changed.wait(lock, [this] { return work.empty() && !busy; });
  }

  void run() {
    std::unique_lock lock{mutex};
    for (;;) {
      changed.wait(lock, [this] { return !work.empty() || ending; });
      if (work.empty()) return;
      const auto job = std::move(work.front());
      work.pop_front();
      busy = true;
      lock.unlock();
      if (const Result r = job(); r != Result::success) self.sticky = static_cast<int>(r);
      lock.lock();
      busy = false;
      self.queued.fetch_sub(1);
      futex_wake_all(self.queued);
      changed.notify_all();
    }
  }
};

struct Event {
  std::mutex mutex;
  std::condition_variable changed;
  unsigned recorded = 0, reached = 0;
};

Result run_on(Stream* stream, std::function<Result()> job) {
  return stream != nullptr ? stream->add(std::move(job)) : job();
}

enum class Kernel : std::uintptr_t { none, fill, add1, spin_ms };

Result launch(Kernel kernel, void** arguments) {
  const auto argument = [&]<class T>(int i, T) { return *static_cast<T*>(arguments[i]); };
  switch (kernel) {
    case Kernel::fill:
      return change(Order::fill32, argument(0, DeviceAddress{}), std::uint64_t{argument(2, 0U)} * 4,
                    argument(1, 0U));
    case Kernel::add1:
      return change(Order::add1, argument(0, DeviceAddress{}), std::uint64_t{argument(1, 0U)} * 4,
                    0);
    case Kernel::spin_ms:
      for (long left = argument(0, 0U); left > 0; --left) raw_pause_ms(1);
      return Result::success;
    case Kernel::none:
      break;
  }
  return Result::invalid_handle;
}

// ---- the restore thread: raw system calls only, nothing that allocates or takes a lock
// -------------

struct Injection {
  enum class Kind { none, slow, fail, hang, die, skip } kind;
  long value;
};

bool starts_with(const char*& text, const char* word) {
  const char* at = text;
  for (; *word != '\0'; ++word, ++at)
    if (*at != *word) return false;
  if (*at != ' ' && *at != '\n' && *at != '\0') return false;
  text = *at == ' ' ? at + 1 : at;
  return true;
}

Injection injection_for(const char* operation) {
  char path[128];
  std::size_t at = 0;
  for (const char* c = self.folder; *c != '\0'; ++c) path[at++] = *c;
  for (const char* c = "/inject"; *c != '\0'; ++c) path[at++] = *c;
  path[at] = '\0';
  const long file = raw(SYS_open, as_long(path), O_RDONLY | O_CLOEXEC);
  if (file < 0) return {Injection::Kind::none, 0};
  char text[512];
  const long size = raw(SYS_read, file, as_long(text), sizeof text - 1);
  raw(SYS_close, file);
  if (size <= 0) return {Injection::Kind::none, 0};
  text[size] = '\0';
  for (const char* line = text; *line != '\0';) {
    const char* word = line;
    if (starts_with(word, operation)) {
      Injection found{Injection::Kind::none, 0};
      if (starts_with(word, "slow"))
        found.kind = Injection::Kind::slow;
      else if (starts_with(word, "fail"))
        found.kind = Injection::Kind::fail;
      else if (starts_with(word, "hang"))
        found.kind = Injection::Kind::hang;
      else if (starts_with(word, "die"))
        found.kind = Injection::Kind::die;
      else if (starts_with(word, "skip"))
        found.kind = Injection::Kind::skip;
      for (; *word >= '0' && *word <= '9'; ++word) found.value = found.value * 10 + (*word - '0');
      return found;
    }
    while (*line != '\0' && *line != '\n') ++line;
    if (*line == '\n') ++line;
  }
  return {Injection::Kind::none, 0};
}

void say_began() {
  char path[128];
  std::size_t at = 0;
  for (const char* c = self.folder; *c != '\0'; ++c) path[at++] = *c;
  for (const char* c = "/began"; *c != '\0'; ++c) path[at++] = *c;
  path[at] = '\0';
  raw(SYS_close, raw(SYS_open, as_long(path), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

bool name_is_mine() {
  char name[16] = {};
  raw(SYS_prctl, PR_GET_NAME, as_long(name));
  const char* wanted = kThreadName;
  for (const char* c = name; *c != '\0' || *wanted != '\0'; ++c, ++wanted)
    if (*c != *wanted) return false;
  return true;
}

void open_devices() {
  for (DeviceFile& file : self.files) {
    const long opened = raw(SYS_open, as_long(file.path), O_RDWR | O_CLOEXEC);
    if (opened < 0) continue;
    if (file.number < 0) {
      file.number = static_cast<int>(opened);
    } else if (opened != file.number) {
      raw(SYS_dup3, opened, file.number, O_CLOEXEC);
      raw(SYS_close, opened);
    }
  }
}

/// Where they were before, if there is a before: whoever has put something else there is at fault.
bool map_devices() {
  const auto map = [](std::uint64_t& at, std::uint64_t size, int file, int protection) {
    const long flags = MAP_SHARED | MAP_NORESERVE | (at != 0 ? MAP_FIXED_NOREPLACE : 0);
    const long mapped =
        raw(SYS_mmap, static_cast<long>(at), static_cast<long>(size), protection, flags, file, 0);
    if (mapped < 0 || (at != 0 && static_cast<std::uint64_t>(mapped) != at)) return false;
    at = static_cast<std::uint64_t>(mapped);
    return true;
  };
  return map(self.window, kWindow, self.files[2].number, PROT_NONE) &&
         map(self.device_page, 4096, self.files[1].number, PROT_READ);
}

void close_files() {
  for (const DeviceFile& file : self.files)
    if (file.number >= 0) raw(SYS_close, file.number);
}

void close_devices() {
  raw(SYS_munmap, static_cast<long>(self.window), static_cast<long>(kWindow));
  raw(SYS_munmap, static_cast<long>(self.device_page), 4096);
  close_files();
  raw(SYS_close, self.socket);
  self.socket = -1;
}

std::int32_t lock(std::uint32_t timeout_ms) {
  if (self.state.load() != 0) return 401;
  const long end = raw_now_ms() + timeout_ms;
  self.gate = 1;
  while (self.inflight.load() != 0 || self.queued.load() != 0) {
    if (timeout_ms != 0 && raw_now_ms() >= end) {
      self.gate = 0;
      futex_wake_all(self.gate);
      return 600;
    }
    raw_pause_ms(1);
  }
  self.state = 1;
  return 0;
}

std::int32_t unlock() {
  if (self.state.load() != 1) return 401;
  self.state = 0;
  self.gate = 0;
  futex_wake_all(self.gate);
  return 0;
}

/// Every allocation, one behind the other in one new mapping.
std::int32_t move_all(Order what) {
  std::uint64_t at = self.carrier;
  for (const Physical& physical : self.physical) {
    if (!physical.used) continue;
    ReplyMessage reply;
    const std::int32_t result =
        order_raw({.order = what, .id = physical.id, .size = physical.size, .address = at}, reply);
    if (result != 0) return result;
    at += (physical.size + 4095) / 4096 * 4096;
  }
  return 0;
}

std::int32_t checkpoint(bool skip) {
  if (self.state.load() != 1) return 401;
  if (self.unsupported.load()) return 801;
  self.carrier_size = 0;
  for (const Physical& physical : self.physical)
    if (physical.used) self.carrier_size += (physical.size + 4095) / 4096 * 4096;
  if (self.carrier_size != 0) {
    const long mapped = raw(SYS_mmap, 0, static_cast<long>(self.carrier_size),
                            PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped < 0) return 2;
    self.carrier = static_cast<std::uint64_t>(mapped);
    if (const std::int32_t result = skip ? 0 : move_all(Order::read); result != 0) {
      raw(SYS_munmap, mapped, static_cast<long>(self.carrier_size));
      return result;
    }
  }
  close_devices();
  self.state = 2;
  return 0;
}

bool same_bytes(const void* a, const void* b, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i)
    if (static_cast<const char*>(a)[i] != static_cast<const char*>(b)[i]) return false;
  return true;
}

/// For each device of old, which it is now; -1 when there is none or it is another chip.
bool choose_devices(const GpuPair* pairs, std::uint32_t count, const ReplyMessage& now,
                    int (&chosen)[kMaxDevices]) {
  if (count != 0 && count != static_cast<std::uint32_t>(self.device_count)) return false;
  for (int i = 0; i < self.device_count; ++i) {
    const unsigned char* wanted = self.devices[i].uuid;
    if (count != 0) {
      wanted = nullptr;
      for (std::uint32_t p = 0; p < count; ++p)
        if (same_bytes(pairs[p].old_uuid.bytes, self.devices[i].uuid, 16))
          wanted = pairs[p].new_uuid.bytes;
      if (wanted == nullptr) return false;
    }
    chosen[i] = -1;
    for (std::uint32_t d = 0; d < now.count; ++d)
      if (same_bytes(now.devices[d].uuid, wanted, 16) &&
          now.devices[d].major == self.devices[i].major &&
          now.devices[d].minor == self.devices[i].minor)
        chosen[i] = static_cast<int>(d);
    if (chosen[i] < 0) return false;
  }
  return true;
}

void forget_empty_reservations() {
  for (Range& range : self.ranges) {
    if (range.kind != Range::Kind::reserved) continue;
    bool empty = true;
    for (const Map& map : self.maps)
      empty = empty && !(map.used && overlaps(map.start, map.size, range.start, range.size));
    if (empty) range.kind = Range::Kind::none;
  }
}

std::int32_t restore(const Request& request, bool forgets) {
  if (self.state.load() != 2) return 401;
  if (self.restore_failed) return 304;
  open_devices();  // at the numbers that they had, before anything else takes one
  self.socket = connect_daemon();
  if (self.socket < 0) {
    close_files();
    return 304;
  }
  ReplyMessage now;
  const OrderMessage list{.order = Order::devices};
  int chosen[kMaxDevices] = {};
  if (order_raw(list, now) != 0 || !choose_devices(request.pairs, request.argument, now, chosen)) {
    raw(SYS_close, self.socket);
    close_files();
    return 1;
  }
  for (Physical& physical : self.physical) {
    if (!physical.used) continue;
    physical.device = static_cast<std::uint32_t>(chosen[physical.device]);
    ReplyMessage reply;
    const std::int32_t result = order_raw(
        {.order = Order::allocate, .device = physical.device, .size = physical.size}, reply);
    if (result != 0) {
      self.restore_failed = true;  // what it has grabbed stays grabbed
      return result;
    }
    physical.id = reply.id;
  }
  if (!map_devices()) {
    self.restore_failed = true;
    return 304;
  }
  if (const std::int32_t result = move_all(Order::write); result != 0) {
    self.restore_failed = true;
    return result;
  }
  if (self.carrier_size != 0)
    raw(SYS_munmap, static_cast<long>(self.carrier), static_cast<long>(self.carrier_size));
  for (int i = 0; i < self.device_count; ++i) self.devices[i] = now.devices[chosen[i]];
  if (forgets) forget_empty_reservations();
  self.state = 1;
  return 0;
}

std::int32_t carry_out(const Request& request, std::int32_t& value) {
  if (request.operation > kUnlock) return 1;
  if (!name_is_mine()) return 304;
  const Injection injected = injection_for(kOperations[request.operation]);
  switch (injected.kind) {
    case Injection::Kind::slow:
      say_began();
      for (long ms = 0; ms < injected.value; ++ms) raw_pause_ms(1);
      break;
    case Injection::Kind::fail:
      return static_cast<std::int32_t>(injected.value);
    case Injection::Kind::hang:
      say_began();
      for (;;) raw_pause_ms(1000);
    case Injection::Kind::die:
      raw(SYS_kill, raw(SYS_getpid), SIGKILL);
      break;
    case Injection::Kind::none:
    case Injection::Kind::skip:
      break;
  }
  switch (request.operation) {
    case kState:
      value = static_cast<std::int32_t>(self.state.load());
      return 0;
    case kLock:
      return lock(request.argument);
    case kCheckpoint:
      return checkpoint(injected.kind == Injection::Kind::skip);
    case kRestore:
      return restore(request, injected.kind == Injection::Kind::skip);
    default:
      return unlock();
  }
}

void* restore_thread(void*) {
  raw(SYS_prctl, PR_SET_NAME, as_long(kThreadName));
  self.restore_thread = static_cast<std::int32_t>(raw(SYS_gettid));
  self.has_begun = 1;
  futex_wake_all(self.has_begun);
  for (;;) {
    Request request;
    const long size = raw(SYS_read, self.request_source, as_long(&request), sizeof request);
    if (size != sizeof request) continue;
    Response response{request.sequence, 0, 0};
    response.result = carry_out(request, response.value);
    raw(SYS_write, self.response_sink, as_long(&response), sizeof response);
  }
}

// ---- cuInit
// ---------------------------------------------------------------------------------------

void set_path(char* to, std::size_t size, const char* name) {
  std::snprintf(to, size, "%s/%s", self.folder, name);
}

Result start_process() {
  const char* const folder = std::getenv("FAKE_CUDA_DIR");
  if (folder == nullptr || std::strlen(folder) >= sizeof self.folder) return Result::no_device;
  std::strcpy(self.folder, folder);
  set_path(self.files[0].path, sizeof self.files[0].path, "nvidiactl");
  struct ::stat device {};
  if (::stat(self.files[0].path, &device) != 0 || S_ISCHR(device.st_mode))
    return Result::no_device;  // /dev/null lies over it
  // The devices before the socket, which only the test driver has.
  const char* names[] = {"nvidiactl", "nvidia0", "nvidia-uvm", "nvidia-uvm"};
  for (int i = 0; i < 4; ++i) {
    set_path(self.files[i].path, sizeof self.files[i].path, names[i]);
    self.files[i].number = -1;
  }
  open_devices();
  self.socket = connect_daemon();
  if (self.socket < 0) return Result::no_device;
  ReplyMessage reply{};
  order({.order = Order::devices}, reply);
  if (reply.count == 0) return Result::no_device;
  self.device_count = static_cast<int>(reply.count);
  std::copy_n(reply.devices, reply.count, self.devices);

  if (!map_devices()) return Result::operating_system;
  self.next_address = self.window + kGranularity;
  self.next_address = self.next_address / kGranularity * kGranularity;

  int request[2], response[2];
  if (::pipe2(request, O_CLOEXEC) != 0 || ::pipe2(response, O_CLOEXEC) != 0)
    return Result::operating_system;
  self.request_source = request[0];
  self.request_end = request[1];
  self.response_end = response[0];
  self.response_sink = response[1];

  sigset_t all, before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const int error = ::pthread_create(&thread, nullptr, restore_thread, nullptr);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) return Result::operating_system;
  while (self.has_begun.load() == 0) futex_wait(self.has_begun, 0);
  self.magic = kMagic;
  return Result::success;
}

// ---- the controller's half
// -------------------------------------------------------------------------

/// Where `self` is in another process; 0 when this library is not in it.
std::uint64_t find_other(pid_t pid) {
  ::Dl_info own{};
  ::dladdr(reinterpret_cast<void*>(&find_other), &own);
  char path[4096];
  if (::realpath(own.dli_fname, path) == nullptr) return 0;
  const std::string maps_path = "/proc/" + std::to_string(pid) + "/maps";
  std::FILE* const maps = std::fopen(maps_path.c_str(), "re");
  if (maps == nullptr) return 0;
  std::uint64_t base = 0;
  char line[4600], name[4400];
  while (base == 0 && std::fgets(line, sizeof line, maps) != nullptr) {
    unsigned long start = 0;
    if (std::sscanf(line, "%lx-%*x %*s %*x %*s %*u %4399[^\n]", &start, name) == 2 &&
        std::strcmp(name, path) == 0)
      base = start;
  }
  std::fclose(maps);
  if (base == 0) return 0;
  return base +
         (reinterpret_cast<std::uint64_t>(&self) - reinterpret_cast<std::uint64_t>(own.dli_fbase));
}

struct Header {
  std::uint64_t magic;
  std::int32_t restore_thread, request_end, response_end;
};

Result read_other(pid_t pid, Header& header) {
  if (::kill(pid, 0) != 0) return Result::operating_system;
  const std::uint64_t place = find_other(pid);
  if (place == 0) return Result::not_initialized;
  const ::iovec ours{&header, sizeof header};
  const ::iovec theirs{reinterpret_cast<void*>(place), sizeof header};
  if (::process_vm_readv(pid, &ours, 1, &theirs, 1, 0) != static_cast<ssize_t>(sizeof header))
    return Result::operating_system;
  return header.magic == kMagic ? Result::success : Result::not_initialized;
}

struct Channel {
  int request = -1, response = -1;
  ~Channel() {
    if (request >= 0) ::close(request);
    if (response >= 0) ::close(response);
  }
};

int open_other(pid_t pid, int number, int flags) {
  const std::string path = "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(number);
  struct ::stat status {};
  const int file = ::open(path.c_str(), flags | O_CLOEXEC);
  if (file >= 0 && ::fstat(file, &status) == 0 && S_ISFIFO(status.st_mode)) return file;
  if (file >= 0) ::close(file);
  return -1;
}

/// Waits for ever, as the real one does, where the restore thread cannot run.
[[maybe_unused]] Result ask(pid_t pid, Request& request, std::int32_t* value = nullptr) {
  Header header{};
  if (const Result r = read_other(pid, header); r != Result::success) return r;
  Channel channel;
  channel.request = open_other(pid, header.request_end, O_WRONLY);
  channel.response = open_other(pid, header.response_end, O_RDONLY);
  if (channel.request < 0 || channel.response < 0) return Result::operating_system;
  if (::flock(channel.request, LOCK_EX) != 0) return Result::operating_system;
  ::timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  request.sequence = static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
                     static_cast<std::uint64_t>(now.tv_nsec) + static_cast<unsigned>(::getpid());
  if (::write(channel.request, &request, sizeof request) != sizeof request)
    return Result::operating_system;
  for (;;) {
    ::pollfd wait{channel.response, POLLIN, 0};
    const int count = ::poll(&wait, 1, 50);
    if (count == 0 && ::access(("/proc/" + std::to_string(pid) + "/fd/0").c_str(), F_OK) != 0 &&
        ::kill(pid, 0) != 0)
      return Result::operating_system;
    if (count == 0) {
      Header again{};
      if (read_other(pid, again) == Result::not_initialized) return Result::operating_system;
    }
    if (count <= 0) continue;
    Response response;
    if (::read(channel.response, &response, sizeof response) != sizeof response)
      return Result::operating_system;
    if (response.sequence != request.sequence) continue;  // of somebody who did not wait
    if (value != nullptr) *value = response.value;
    return static_cast<Result>(response.result);
  }
}

[[maybe_unused]] bool is_zero(const void* bytes, std::size_t size) {
  const auto* const all = static_cast<const unsigned char*>(bytes);
  return std::all_of(all, all + size, [](unsigned char byte) { return byte == 0; });
}

int version() {
  const char* const text = std::getenv("FAKE_VERSION");
  return text != nullptr ? std::atoi(text) : 13000;
}

bool is_stub() {
  const char* const text = std::getenv("FAKE_DRIVER");
  return text != nullptr && std::strcmp(text, "stub") == 0;
}

}  // namespace
}  // namespace fake

using namespace fake;

// ---- the driver's functions
// ------------------------------------------------------------------------

EXPORT Result cuInit(unsigned flags) {
  if (is_stub()) return Result::stub_library;
  if (flags != 0) return Result::invalid_value;
  const char* const mode = std::getenv("FAKE_DRIVER");
  if (mode != nullptr && std::strcmp(mode, "no_device") == 0) return Result::no_device;
  const std::lock_guard lock{tables};
  if (initialised) return Result::success;
  const Result result = start_process();
  initialised = result == Result::success;
  return result;
}

EXPORT Result cuDriverGetVersion(int* value) {
  if (value == nullptr) return Result::invalid_value;
  *value = version();
  return Result::success;
}

EXPORT Result cuGetErrorName(Result error, const char** name) {
  if (name == nullptr) return Result::invalid_value;
  switch (error) {
#define NAME(value, text) \
  case Result::value:     \
    *name = "CUDA_" text; \
    return Result::success
    NAME(success, "SUCCESS");
    NAME(invalid_value, "ERROR_INVALID_VALUE");
    NAME(out_of_memory, "ERROR_OUT_OF_MEMORY");
    NAME(not_initialized, "ERROR_NOT_INITIALIZED");
    NAME(stub_library, "ERROR_STUB_LIBRARY");
    NAME(no_device, "ERROR_NO_DEVICE");
    NAME(operating_system, "ERROR_OPERATING_SYSTEM");
    NAME(illegal_state, "ERROR_ILLEGAL_STATE");
    NAME(not_ready, "ERROR_NOT_READY");
    NAME(not_permitted, "ERROR_NOT_PERMITTED");
    NAME(not_supported, "ERROR_NOT_SUPPORTED");
#undef NAME
    default:
      *name = nullptr;
      return Result::invalid_value;
  }
}

EXPORT Result cuDeviceGetCount(int* count) {
  if (!initialised) return Result::not_initialized;
  if (count == nullptr) return Result::invalid_value;
  *count = self.device_count;
  return Result::success;
}

static bool is_device(Device device) { return device >= 0 && device < self.device_count; }

EXPORT Result cuDeviceGet(Device* device, int ordinal) {
  if (!initialised) return Result::not_initialized;
  if (device == nullptr || !is_device(ordinal)) return Result::invalid_device;
  *device = ordinal;
  return Result::success;
}

EXPORT Result cuDeviceGetName(char* name, int size, Device device) {
  if (!initialised) return Result::not_initialized;
  if (name == nullptr || size <= 0 || !is_device(device)) return Result::invalid_value;
  std::snprintf(name, static_cast<std::size_t>(size), "%s", self.devices[device].name);
  return Result::success;
}

EXPORT Result cuDeviceGetUuid_v2(Uuid* uuid, Device device) {
  if (!initialised) return Result::not_initialized;
  if (uuid == nullptr || !is_device(device)) return Result::invalid_value;
  std::memcpy(uuid->bytes, self.devices[device].uuid, 16);
  return Result::success;
}

EXPORT Result cuDeviceGetAttribute(int* value, int attribute, Device device) {
  if (!initialised) return Result::not_initialized;
  if (value == nullptr || !is_device(device)) return Result::invalid_value;
  switch (attribute) {
    case icecore::gpu::kComputeCapabilityMajor:
      *value = self.devices[device].major;
      return Result::success;
    case icecore::gpu::kComputeCapabilityMinor:
      *value = self.devices[device].minor;
      return Result::success;
    default:
      return Result::invalid_value;
  }
}

EXPORT Result cuDeviceTotalMem_v2(std::size_t* bytes, Device device) {
  if (!initialised) return Result::not_initialized;
  if (bytes == nullptr || !is_device(device)) return Result::invalid_value;
  *bytes = self.devices[device].total;
  return Result::success;
}

EXPORT Result cuDevicePrimaryCtxRetain(void** context, Device device) {
  return gated([&] {
    if (context == nullptr || !is_device(device)) return Result::invalid_value;
    *context = reinterpret_cast<void*>(static_cast<std::uintptr_t>(device) + 1);
    return Result::success;
  });
}

EXPORT Result cuDevicePrimaryCtxRelease_v2(Device device) {
  return gated([&] { return is_device(device) ? Result::success : Result::invalid_device; });
}

EXPORT Result cuCtxSetCurrent(void* context) {
  return gated([&] {
    const auto number = static_cast<int>(reinterpret_cast<std::uintptr_t>(context)) - 1;
    if (number >= self.device_count) return Result::invalid_context;
    current_device = number;
    return Result::success;
  });
}

EXPORT Result cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
  return in_context([&] {
    if (free == nullptr || total == nullptr) return Result::invalid_value;
    ReplyMessage reply{};
    const Result result =
        order({.order = Order::info, .device = static_cast<std::uint32_t>(current_device)}, reply);
    *free = reply.free;
    *total = reply.total;
    return result;
  });
}

// ---- memory
// ------------------------------------------------------------------------------------------

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
    self.unsupported = true;
    ::mmap(nullptr, 4096, PROT_NONE, MAP_SHARED, self.files[2].number, 0);
    return allocate(Range::Kind::malloc, size, address);
  });
}

EXPORT Result cuIpcGetMemHandle(void* handle, DeviceAddress address) {
  return in_context([&] {
    Place place;
    if (handle == nullptr) return Result::invalid_value;
    const Result result = place_of(address, 1, place);
    if (result == Result::success) self.unsupported = true;
    return result;
  });
}

// ---- virtual memory management
// ---------------------------------------------------------------------

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

// ---- streams, events, modules
// ------------------------------------------------------------------------

EXPORT Result cuStreamCreate(Stream** stream, unsigned flags) {
  return in_context([&] {
    if (stream == nullptr || flags > 1) return Result::invalid_value;
    *stream = new Stream;
    return Result::success;
  });
}

EXPORT Result cuStreamDestroy_v2(Stream* stream) {
  return in_context([&] {
    if (stream == nullptr) return Result::invalid_handle;
    delete stream;
    return Result::success;
  });
}

EXPORT Result cuStreamQuery(Stream* stream) {
  return in_context(
      [&] { return stream == nullptr || stream->idle() ? Result::success : Result::not_ready; });
}

/// Not held back by Lock, and deadly between Checkpoint and Restore, as in the real one.
EXPORT Result cuStreamSynchronize(Stream* stream) {
  if (!initialised) return Result::not_initialized;
  if (self.state.load() == 2) std::abort();
  if (stream != nullptr) stream->synchronize();
  return static_cast<Result>(self.sticky.load());
}

EXPORT Result cuCtxSynchronize() {
  if (!initialised) return Result::not_initialized;
  if (self.state.load() == 2) std::abort();
  for (std::uint32_t left = 0; (left = self.queued.load()) != 0;) futex_wait(self.queued, left);
  return static_cast<Result>(self.sticky.load());
}

EXPORT Result cuLaunchHostFunc(Stream* stream, void (*function)(void*), void* data) {
  return in_context([&] {
    if (function == nullptr) return Result::invalid_value;
    return run_on(stream, [=] {
      function(data);
      return Result::success;
    });
  });
}

EXPORT Result cuEventCreate(Event** event, unsigned) {
  return in_context([&] {
    if (event == nullptr) return Result::invalid_value;
    *event = new Event;
    return Result::success;
  });
}

EXPORT Result cuEventRecord(Event* event, Stream* stream) {
  return in_context([&] {
    if (event == nullptr) return Result::invalid_handle;
    unsigned number = 0;
    {
      const std::lock_guard lock{event->mutex};
      number = ++event->recorded;
    }
    return run_on(stream, [=] {
      const std::lock_guard lock{event->mutex};
      event->reached = std::max(event->reached, number);
      event->changed.notify_all();
      return Result::success;
    });
  });
}

EXPORT Result cuEventQuery(Event* event) {
  return in_context([&] {
    if (event == nullptr) return Result::invalid_handle;
    const std::lock_guard lock{event->mutex};
    return event->reached == event->recorded ? Result::success : Result::not_ready;
  });
}

EXPORT Result cuEventSynchronize(Event* event) {
  if (!initialised) return Result::not_initialized;
  if (self.state.load() == 2) std::abort();
  if (event == nullptr) return Result::invalid_handle;
  std::unique_lock lock{event->mutex};
  event->changed.wait(lock, [&] { return event->reached == event->recorded; });
  return Result::success;
}

EXPORT Result cuEventDestroy_v2(Event* event) {
  return in_context([&] {
    if (event == nullptr) return Result::invalid_handle;
    delete event;
    return Result::success;
  });
}

namespace {
struct Module {
  DeviceAddress counter;
};
}  // namespace

EXPORT Result cuModuleLoadData(Module** module, const void* image) {
  return in_context([&] {
    if (module == nullptr || image == nullptr) return Result::invalid_value;
    auto* const made = new Module{};
    const Result result = allocate(Range::Kind::module, 4, &made->counter);
    if (result == Result::success) *module = made;
    return result;
  });
}

EXPORT Result cuModuleGetFunction(void** function, Module* module, const char* name) {
  return in_context([&] {
    if (function == nullptr || module == nullptr || name == nullptr) return Result::invalid_value;
    const std::string wanted = name;
    const Kernel kernel = wanted == "fill"      ? Kernel::fill
                          : wanted == "add1"    ? Kernel::add1
                          : wanted == "spin_ms" ? Kernel::spin_ms
                                                : Kernel::none;
    if (kernel == Kernel::none) return Result::not_found;
    *function = reinterpret_cast<void*>(kernel);
    return Result::success;
  });
}

EXPORT Result cuModuleGetGlobal_v2(DeviceAddress* address, std::size_t* size, Module* module,
                                   const char* name) {
  return in_context([&] {
    if (module == nullptr || name == nullptr) return Result::invalid_value;
    if (std::strcmp(name, "counter") != 0) return Result::not_found;
    if (address != nullptr) *address = module->counter;
    if (size != nullptr) *size = 4;
    return Result::success;
  });
}

EXPORT Result cuLaunchKernel(void* function, unsigned, unsigned, unsigned, unsigned, unsigned,
                             unsigned, unsigned, Stream* stream, void** arguments, void**) {
  return in_context([&] {
    const auto kernel = static_cast<Kernel>(reinterpret_cast<std::uintptr_t>(function));
    if (kernel == Kernel::none || arguments == nullptr) return Result::invalid_handle;
    // The arguments are the caller's for the time of the call only.
    struct Copied {
      std::uint64_t values[3];
    };
    Copied copied{};
    const int count = kernel == Kernel::fill ? 3 : kernel == Kernel::add1 ? 2 : 1;
    for (int i = 0; i < count; ++i)
      std::memcpy(&copied.values[i], arguments[i],
                  i == 0 && kernel != Kernel::spin_ms ? sizeof(DeviceAddress) : sizeof(unsigned));
    return run_on(stream, [=]() mutable {
      void* places[] = {&copied.values[0], &copied.values[1], &copied.values[2]};
      return launch(kernel, places);
    });
  });
}

// ---- checkpoint
// ----------------------------------------------------------------------------------------

#ifndef FAKE_WITHOUT_CHECKPOINT

EXPORT Result cuCheckpointProcessGetRestoreThreadId(int pid, int* tid) {
  if (is_stub()) return Result::stub_library;
  if (tid == nullptr) return Result::invalid_value;
  Header header{};
  const Result result = read_other(pid, header);
  if (result == Result::success) *tid = header.restore_thread;
  return result;
}

EXPORT Result cuCheckpointProcessGetState(int pid, ProcessState* state) {
  if (is_stub()) return Result::stub_library;
  if (state == nullptr) return Result::invalid_value;
  Request request{};
  request.operation = kState;
  std::int32_t value = 0;
  const Result result = ask(pid, request, &value);
  if (result == Result::success) *state = static_cast<ProcessState>(value);
  return result;
}

EXPORT Result cuCheckpointProcessLock(int pid, LockArguments* arguments) {
  Request request{};
  request.operation = kLock;
  if (arguments != nullptr) {
    if (arguments->reserved0 != 0 || !is_zero(arguments->reserved1, sizeof arguments->reserved1))
      return Result::invalid_value;
    request.argument = arguments->timeout_ms;
  }
  return ask(pid, request);
}

EXPORT Result cuCheckpointProcessCheckpoint(int pid, CheckpointArguments* arguments) {
  if (arguments != nullptr && !is_zero(arguments, sizeof *arguments)) return Result::invalid_value;
  Request request{};
  request.operation = kCheckpoint;
  return ask(pid, request);
}

EXPORT Result cuCheckpointProcessRestore(int pid, RestoreArguments* arguments) {
  Request request{};
  request.operation = kRestore;
  if (arguments != nullptr) {
    if (!is_zero(arguments->reserved, sizeof arguments->reserved) || arguments->reserved1 != 0 ||
        arguments->pair_count > kMaxDevices ||
        (arguments->pair_count != 0 && (arguments->pairs == nullptr || version() < 13000)))
      return Result::invalid_value;
    request.argument = arguments->pair_count;
    std::copy_n(arguments->pairs, arguments->pair_count, request.pairs);
  }
  if (!initialised && std::getenv("FAKE_NO_PERSISTENCE") != nullptr) return Result::not_permitted;
  return ask(pid, request);
}

EXPORT Result cuCheckpointProcessUnlock(int pid, UnlockArguments* arguments) {
  if (arguments != nullptr && !is_zero(arguments, sizeof *arguments)) return Result::invalid_value;
  Request request{};
  request.operation = kUnlock;
  return ask(pid, request);
}

#endif

// ---- names
// ------------------------------------------------------------------------------------------------

EXPORT Result cuGetProcAddress_v2(const char* name, void** function, int wanted, std::uint64_t,
                                  int* status) {
  if (name == nullptr || function == nullptr || wanted > version()) return Result::invalid_value;
  *function = nullptr;
  if (status != nullptr) *status = 1;  // not found
  for (const icecore::gpu::Symbol& symbol : icecore::gpu::kSymbols) {
    if (std::strcmp(symbol.name, name) != 0) continue;
    if (wanted < symbol.since) {
      if (status != nullptr) *status = 2;  // version too low
      return Result::success;
    }
    static void* const own = [] {
      ::Dl_info info{};
      ::dladdr(reinterpret_cast<void*>(&find_other), &info);
      return ::dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    }();
    *function = ::dlsym(own, symbol.exported);
    if (*function != nullptr && status != nullptr) *status = 0;
    return Result::success;
  }
  return Result::not_found;
}
