// SPDX-License-Identifier: Apache-2.0
//
// State: a CUDA context with three buffers, memory mapped at an address of its own (cuMemMap), a
// stream, an event and a module with a variable, all in use by threads all the time; by way of the
// libcuda.so.1 that the first argument names.  Further arguments: "late" (cuInit only when asked
// "init"), "managed", "shared" (CUDA IPC), "quiet" (no other threads), "child" (forked before
// cuInit), "MIB N" (a large buffer), "HOLD N" (so many MiB that nobody looks at).
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <atomic>

#include "cuda.hpp"
#include "target.hpp"

using namespace target;

namespace {

// For a real driver; the test driver knows the names and does not read the rest.
constexpr const char* kModule = R"(
.version 7.0
.target sm_75
.address_size 64
.visible .global .align 4 .u32 counter;
.visible .entry add1(.param .u64 place, .param .u32 count)
{
  .reg .pred %p<2>;
  .reg .b32 %r<8>;
  .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [place];
  ld.param.u32 %r1, [count];
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mov.u32 %r4, %tid.x;
  mad.lo.s32 %r5, %r2, %r3, %r4;
  setp.ge.u32 %p1, %r5, %r1;
  @%p1 bra DONE;
  cvta.to.global.u64 %rd2, %rd1;
  mul.wide.u32 %rd3, %r5, 4;
  add.s64 %rd4, %rd2, %rd3;
  ld.global.u32 %r6, [%rd4];
  add.u32 %r7, %r6, 1;
  st.global.u32 [%rd4], %r7;
DONE:
  ret;
}
.visible .entry spin_ms(.param .u32 ms)
{
  .reg .pred %p<2>;
  .reg .b32 %r<2>;
  .reg .b64 %rd<5>;
  ld.param.u32 %r1, [ms];
  mul.wide.u32 %rd1, %r1, 1000000;
  mov.u64 %rd2, %globaltimer;
  add.u64 %rd3, %rd2, %rd1;
LOOP:
  mov.u64 %rd4, %globaltimer;
  setp.lt.u64 %p1, %rd4, %rd3;
  @%p1 bra LOOP;
  ret;
}
)";
constexpr unsigned kBlock = 256;

struct Cuda {
  std::vector<Buffer> buffers;
  void* stream = nullptr;
  void* event = nullptr;
  void* module = nullptr;
  void* add1 = nullptr;
  void* spin = nullptr;
  unsigned counted = 0;

  void begin(std::size_t mib) {
    must_cu("cuInit", 0U);
    use_context();
    for (const std::size_t count : {std::size_t{75}, std::size_t{300'001}, std::size_t{1} << 20})
      add_buffer(count);
    if (mib != 0) add_buffer(mib << 18);
    add_mapped();
    must_cu("cuStreamCreate", &stream, 1U);
    must_cu("cuEventCreate", &event, 2U);
    must_cu("cuModuleLoadData", &module, static_cast<const void*>(kModule));
    must_cu("cuModuleGetFunction", &add1, module, "add1");
    must_cu("cuModuleGetFunction", &spin, module, "spin_ms");
    const unsigned zero = 0;
    must_cu("cuMemcpyHtoD_v2", counter(), static_cast<const void*>(&zero), std::size_t{4});
  }

  void add_buffer(std::size_t count) {
    Buffer buffer{.count = count};
    must_cu("cuMemAlloc_v2", &buffer.address, count * 4);
    buffer.fill();
    buffers.push_back(buffer);
  }

  void add_mapped() {
    constexpr std::size_t kBytes = std::size_t{4} << 20;
    Buffer buffer{.address = map_memory(kBytes).address, .count = kBytes / 4};
    buffer.fill();
    buffers.push_back(buffer);
  }

  Address counter() const {
    Address address = 0;
    std::size_t size = 0;
    must_cu("cuModuleGetGlobal_v2", &address, &size, module, "counter");
    return address;
  }

  void launch(void* function, Address address, unsigned value) const {
    void* arguments[] = {&address, &value, nullptr};
    if (function == spin) arguments[0] = &value;
    const unsigned blocks = function == spin ? 1 : (value + kBlock - 1) / kBlock;
    must_cu("cuLaunchKernel", function, blocks, 1U, 1U, kBlock, 1U, 1U, 0U, stream,
            static_cast<void**>(arguments), static_cast<void**>(nullptr));
  }

  /// Everything is where and what it was, and can be used.
  void check() {
    for (const Buffer& buffer : buffers) buffer.expect();
    for (Buffer& buffer : buffers) {
      launch(add1, buffer.address, static_cast<unsigned>(buffer.count));
      ++buffer.added;
    }
    launch(add1, counter(), 1);
    ++counted;
    unsigned found = 0;
    must_cu("cuMemcpyDtoHAsync_v2", static_cast<void*>(&found), counter(), std::size_t{4}, stream);
    must_cu("cuEventRecord", event, stream);
    must_cu("cuEventSynchronize", event);
    require(cu("cuEventQuery", event) == 0, "the event is not reached");
    require(found == counted, "the module's variable is " + std::to_string(found));
    for (const Buffer& buffer : buffers) buffer.expect();
  }
};

Cuda cuda;
std::atomic<std::uint64_t> rounds;
std::atomic<bool> failed;

/// What other threads do all the time, and what a thread that is stopped in the middle of it must
/// not keep the driver from working.
void keep_busy() {
  std::thread{[] {
    Buffer buffer{.count = 64};
    use_context();
    must_cu("cuMemAlloc_v2", &buffer.address, buffer.count * 4);
    buffer.fill();
    for (;; ++rounds) {
      try {
        buffer.expect();
      } catch (const Wrong&) {
        failed = true;
        return;
      }
    }
  }}.detach();
  std::thread{[] {
    for (;; ::usleep(10)) std::free(std::malloc(static_cast<std::size_t>(rounds) % 100'000 + 1));
  }}.detach();
  std::thread{[] {
    use_context();
    for (;; ::usleep(10)) {
      cu("cuStreamSynchronize", cuda.stream);
      cu("cuCtxSynchronize");
    }
  }}.detach();
}

/// Ends with us.
pid_t fork_child() {
  const pid_t child = static_cast<pid_t>(must(::fork(), "fork"));
  if (child != 0) return child;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (;;) ::pause();
}

}  // namespace

int main(int count, char** arguments) {
  pid_t child = 0;
  bool late = false, managed = false, shared = false, quiet = false;
  std::size_t mib = 0, held_mib = 0;
  for (int i = 2; i < count; ++i) {
    const std::string word = arguments[i];
    late = late || word == "late";
    managed = managed || word == "managed";
    shared = shared || word == "shared";
    quiet = quiet || word == "quiet";
    if (word == "child") child = fork_child();
    if (word == "MIB") mib = static_cast<std::size_t>(std::atol(arguments[++i]));
    if (word == "HOLD") held_mib = static_cast<std::size_t>(std::atol(arguments[++i]));
  }
  const auto begin = [&] {
    library = ::dlopen(arguments[1], RTLD_NOW);
    if (library == nullptr) throw Wrong{::dlerror()};
    cuda.begin(mib);
    Address address = 0;
    if (held_mib != 0) must_cu("cuMemAlloc_v2", &address, held_mib << 20);
    if (managed) must_cu("cuMemAllocManaged", &address, std::size_t{1} << 20, 1U);
    unsigned char handle[64];
    if (shared) must_cu("cuIpcGetMemHandle", static_cast<void*>(handle), cuda.buffers[0].address);
    if (!quiet) keep_busy();
  };
  if (!late) begin();
  return serve(
      [] {
        if (library == nullptr) return;
        require(!failed, "a copy of another thread went wrong");
        cuda.check();
        require(!failed, "a copy of another thread went wrong");
      },
      {{"init",
        [&](auto&) {
          begin();
          return "ok";
        }},
       {"spin",
        [](const std::string& ms) {
          cuda.launch(cuda.spin, 0, static_cast<unsigned>(std::stoul(ms)));
          return "ok";
        }},
       {"child?",
        [&](auto&) {
          return child != 0 && ::kill(child, 0) == 0 && ::waitpid(child, nullptr, WNOHANG) == 0
                     ? "runs"
                     : "ended";
        }},
       {"rounds", [](auto&) { return std::to_string(rounds.load()); }}});
}
