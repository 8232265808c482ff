// SPDX-License-Identifier: Apache-2.0
#pragma once

// A libcuda.so.1 for tests: as strict as the documentation of the CUDA Driver API (docs/gpu.md has
// what it is made after), with device memory in another process (gpud.cpp).
//
// Like the real library it is two in one.  In a process that uses CUDA: a gate that every call
// passes (here), what there is (device.cpp), memory (memory.cpp), streams (streams.cpp), and the
// restore thread (restore_thread.cpp), which does what a controller asks through two pipes.  In a
// controller: the six calls cuCheckpointProcess… (controller.cpp), which find those pipes in the
// other process.  What a call does in which state is table.hpp.
//
// Environment, read at cuInit:
//   FAKE_CUDA_DIR   folder with the socket of gpud ("gpud") and the devices ("nvidia0" …)
//   FAKE_VERSION    cuDriverGetVersion, by default 13000
//   FAKE_DRIVER     "stub": cuInit gives 34; "no_device": 100
//   FAKE_MIG        the process uses a part of a GPU: it has nvidia-caps/nvidia-cap3 open, and
//                   Checkpoint runs out of memory
//   CUDA_MPS_PIPE_DIRECTORY, CUDA_INJECTION64_PATH   it uses MPS, or a profiler: Checkpoint is not
//                   supported
//   FAKE_NO_PERSISTENCE  Restore wants cuInit of its caller
//   FAKE_NO_COPIES_OUT   cuMemcpyDtoHAsync copies nothing
// and the file FAKE_CUDA_DIR/inject, read by the restore thread at each request, of lines
//   lock|checkpoint|restore|unlock|state  slow MS | fail CODE | hang | die | skip | storm N
// where `checkpoint skip` claims to have saved what it has not, `restore skip` forgets reserved
// addresses that lead nowhere, and `storm` is N times three signals for the thread.  Whoever is
// slow or hangs makes the file "began" first, for the test to wait for.

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <mutex>

#include "gpu/cuda.hpp"
#include "raw.hpp"
#include "table.hpp"
#include "wire.hpp"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace fake {

using icecore::gpu::CheckpointArguments;
using icecore::gpu::Device;
using icecore::gpu::DeviceAddress;
using icecore::gpu::GpuPair;
using icecore::gpu::LockArguments;
using icecore::gpu::RestoreArguments;
using icecore::gpu::UnlockArguments;
using icecore::gpu::Uuid;

constexpr std::uint64_t kMagic = 0x6563'616b'6564'7563;
constexpr std::uint64_t kGranularity = std::uint64_t{2} << 20;
constexpr std::uint64_t kWindow = std::uint64_t{64} << 30;
constexpr int kMaxMemory = 1024;

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
  char path[128];
  int number;
};

/// From a controller to the restore thread, and back.
struct Request {
  std::uint64_t sequence;
  Call call;
  std::uint32_t argument;
  GpuPair pairs[kMaxDevices];
};

struct Response {
  std::uint64_t sequence;
  std::int32_t result;
  std::int32_t value;
};

/// What a controller reads from outside, at the beginning of Process.
struct Header {
  std::uint64_t magic;
  std::int32_t restore_thread;
  std::int32_t request_end;  // a descriptor of this process
  std::int32_t response_end;
};

enum { kControlFile, kGpuFile, kUvmFile, kSecondUvmFile, kPartFile, kFiles };

/// Static and without constructors: a controller reads the beginning from outside, the restore
/// thread must not allocate.
struct Process {
  Header header;

  std::int32_t request_source, response_sink;
  std::atomic<ProcessState> state;
  std::atomic<std::uint32_t> gate;  // 1: closed
  std::atomic<std::uint32_t> inflight;
  std::atomic<std::uint32_t> has_begun;   // 1: the restore thread
  std::atomic<std::uint32_t> queued;      // work and callbacks of all streams
  std::atomic<std::int32_t> sticky;       // an error that every later call gives
  std::atomic<std::int32_t> unsupported;  // what Checkpoint gives for what the process uses
  bool restore_failed;

  int socket;
  DeviceFile files[kFiles];
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
extern Process self;

extern std::mutex tables;  // of all but the restore thread
extern bool initialised;   // of this process image: a controller needs it for Restore
extern thread_local int current_device;

inline bool overlaps(std::uint64_t a, std::uint64_t a_size, std::uint64_t b, std::uint64_t b_size) {
  return a < b + b_size && b < a + a_size;
}

int version();
bool is_stub();

// ---- gpud (daemon.cpp)

/// By raw calls, for the restore thread too.
int connect_daemon();
std::int32_t order_raw(const OrderMessage& order, ReplyMessage& reply);

Result order(const OrderMessage& message, ReplyMessage& reply);
Result order(const OrderMessage& message);

// ---- memory.cpp

/// Device memory for a variable, in the current context.
Result allocate(Range::Kind kind, std::uint64_t size, DeviceAddress* address);
/// Fills it, or adds to it.
Result change(Order what, DeviceAddress device, std::uint64_t size, std::uint64_t value);

// ---- restore_thread.cpp

void* restore_thread(void*);
/// At the numbers and addresses that they had before, if there is a before.
void open_devices();
bool map_devices();

// ---- the gate

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

/// Those that are not held back by Lock, and deadly between Checkpoint and Restore, as in the real
/// one.
template <class Wait>
Result synchronized(Wait wait) {
  if (!initialised) return Result::not_initialized;
  if (self.state.load() == ProcessState::checkpointed) std::abort();
  wait();
  return static_cast<Result>(self.sticky.load());
}

}  // namespace fake
