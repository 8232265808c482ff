// SPDX-License-Identifier: Apache-2.0
//
// Holds any libcuda.so.1 against table.hpp: the test driver, to show that it is what the
// documentation says, and a real one, to show where that is not what the documentation says.
//
//     gpu_conformance [LIBCUDA]     one line a step; exit status 1 when any differs
//     gpu_conformance --call|--call-without-init state|lock|checkpoint|restore|unlock PID [LIBCUDA]
//                                   makes one call and prints its result and the state after it
//
// Makes a child that uses CUDA (a context and a buffer), which every step is about.
#include <dlfcn.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "table.hpp"

namespace {

using namespace icecore::gpu;
using fake::Arguments;
using fake::Step;
using fake::Subject;

constexpr std::size_t kBytes = std::size_t{1} << 20;
constexpr unsigned kPatienceSeconds = 60;

void* library;

template <class Function>
Function find(const char* name) {
  const auto found = reinterpret_cast<Function>(::dlsym(library, name));
  if (found == nullptr) {
    std::printf("no %s here: nothing to compare\n", name);
    std::exit(2);
  }
  return found;
}

void load(const char* path) {
  library = ::dlopen(path, RTLD_NOW);
  if (library == nullptr) {
    std::printf("%s\n", ::dlerror());
    std::exit(2);
  }
}

// ---- the child
// -----------------------------------------------------------------------------------

void require(Result result, const char* what) {
  if (result == Result::success) return;
  std::fprintf(stderr, "%s gives %d\n", what, static_cast<int>(result));
  std::_Exit(3);
}

/// Has a buffer, says so, and looks whether it still has it when it reads a byte.
[[noreturn]] void use_cuda(const char* path) {
  load(path);
  require(find<Init>("cuInit")(0), "cuInit");
  Context context{};
  require(find<DevicePrimaryCtxRetain>("cuDevicePrimaryCtxRetain")(&context, 0), "a context");
  require(find<CtxSetCurrent>("cuCtxSetCurrent")(context), "cuCtxSetCurrent");
  DeviceAddress address = 0;
  require(find<Result (*)(DeviceAddress*, std::size_t)>("cuMemAlloc_v2")(&address, kBytes),
          "cuMemAlloc");
  std::vector<unsigned char> written(kBytes, 0x5a), found(kBytes);
  require(find<Result (*)(DeviceAddress, const void*, std::size_t)>("cuMemcpyHtoD_v2")(
              address, written.data(), kBytes),
          "cuMemcpyHtoD");
  char byte = 'r';
  if (::write(1, &byte, 1) != 1 || ::read(0, &byte, 1) != 1) std::_Exit(4);
  require(find<Result (*)(void*, DeviceAddress, std::size_t)>("cuMemcpyDtoH_v2")(found.data(),
                                                                                 address, kBytes),
          "cuMemcpyDtoH");
  std::_Exit(written == found ? 0 : 5);
}

struct Child {
  pid_t pid;
  int to, from;

  Child(const char* self, const char* path) {
    int in[2], out[2];
    if (::pipe(in) != 0 || ::pipe(out) != 0) std::exit(2);
    pid = ::fork();  // before anything of CUDA is in this process
    if (pid == 0) {
      ::dup2(in[0], 0);
      ::dup2(out[1], 1);
      ::close(in[1]);
      ::close(out[0]);
      ::execl(self, self, "--child", path, nullptr);
      std::_Exit(2);
    }
    ::close(in[0]);
    ::close(out[1]);
    to = in[1];
    from = out[0];
    char byte;
    if (::read(from, &byte, 1) == 1) return;
    std::printf("no process can use CUDA here\n");
    std::exit(2);
  }

  int finish() const {
    if (::write(to, "x", 1) != 1) return -1;
    int status = 0;
    ::waitpid(pid, &status, 0);
    return status;
  }
};

// ---- the controller
// ------------------------------------------------------------------------------

Result perform(const Step& step, int pid) {
  struct Blob {
    unsigned char bytes[64] = {};
  } blob;
  // The last byte is reserved in all of them.
  if (step.arguments == Arguments::reserved_set) blob.bytes[63] = 1;
  void* const arguments = step.arguments == Arguments::none ? nullptr : &blob;
  using AnyCall = Result (*)(int, void*);
  switch (step.call) {
    case fake::Call::state: {
      ProcessState state{};
      return find<CheckpointProcessGetState>("cuCheckpointProcessGetState")(pid, &state);
    }
    case fake::Call::lock:
      return find<AnyCall>("cuCheckpointProcessLock")(pid, arguments);
    case fake::Call::checkpoint:
      return find<AnyCall>("cuCheckpointProcessCheckpoint")(pid, arguments);
    case fake::Call::restore:
      return find<AnyCall>("cuCheckpointProcessRestore")(pid, arguments);
    case fake::Call::unlock:
      return find<AnyCall>("cuCheckpointProcessUnlock")(pid, arguments);
  }
  return Result::unknown;
}

const char* current = "";

void give_up(int) {
  std::printf("HANGS   %s\n", current);
  std::fflush(stdout);
  std::_Exit(1);
}

int compare(const Child& child) {
  int differences = 0;
  ProcessState before = ProcessState::running;
  for (const Step& step : fake::kSteps) {
    current = step.name;
    ::alarm(kPatienceSeconds);
    const int pid = step.subject == Subject::target          ? child.pid
                    : step.subject == Subject::other_process ? ::getppid()
                                                             : 0x3ffffe;
    const Result result = perform(step, pid);
    ProcessState after{};
    find<CheckpointProcessGetState>("cuCheckpointProcessGetState")(child.pid, &after);
    const fake::Transition wanted = expected(step, before);
    const bool same = result == wanted.result && after == wanted.to;
    before = wanted.to;
    differences += same ? 0 : 1;
    std::printf("%s  %-36s %d, state %d", same ? "same  " : "DIFFERS", step.name,
                static_cast<int>(result), static_cast<int>(after));
    if (!same)
      std::printf("; expected %d, state %d", static_cast<int>(wanted.result),
                  static_cast<int>(wanted.to));
    std::printf("\n");
  }
  return differences;
}

}  // namespace

namespace {

int call_once(const char* name, int pid) {
  unsigned call = 0;
  while (call < 5 && std::strcmp(fake::kCallNames[call], name) != 0) ++call;
  if (call == 5) return 2;
  const Step step{name, static_cast<fake::Call>(call)};
  const Result result = perform(step, pid);
  ProcessState after{};
  find<CheckpointProcessGetState>("cuCheckpointProcessGetState")(pid, &after);
  std::printf("%d, state %d\n", static_cast<int>(result), static_cast<int>(after));
  return result == Result::success ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  const bool without_init = count >= 4 && std::strcmp(arguments[1], "--call-without-init") == 0;
  if (without_init || (count >= 4 && std::strcmp(arguments[1], "--call") == 0)) {
    load(count > 4 ? arguments[4] : "libcuda.so.1");
    if (!without_init) require(find<Init>("cuInit")(0), "cuInit");
    return call_once(arguments[2], std::atoi(arguments[3]));
  }
  if (count == 3 && std::strcmp(arguments[1], "--child") == 0) use_cuda(arguments[2]);
  const char* const path = count > 1 ? arguments[1] : "libcuda.so.1";
  ::signal(SIGALRM, give_up);
  const Child child{"/proc/self/exe", path};
  load(path);
  require(find<Init>("cuInit")(0), "cuInit");
  const int differences = compare(child);
  const int status = child.finish();
  const bool kept = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  std::printf("%s  the buffer of the process\n", kept ? "same  " : "DIFFERS");
  std::printf("%d differences\n", differences + (kept ? 0 : 1));
  return differences == 0 && kept ? 0 : 1;
}
