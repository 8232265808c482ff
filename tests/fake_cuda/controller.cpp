// SPDX-License-Identifier: Apache-2.0
//
// The six calls cuCheckpointProcess…, which find the restore thread's pipes in another process.
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "process.hpp"

namespace fake {
namespace {

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

}  // namespace
}  // namespace fake

using namespace fake;

// ---- checkpoint -------------------------------------------------------------------------------

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
  request.call = Call::state;
  std::int32_t value = 0;
  const Result result = ask(pid, request, &value);
  if (result == Result::success) *state = static_cast<ProcessState>(value);
  return result;
}

EXPORT Result cuCheckpointProcessLock(int pid, LockArguments* arguments) {
  Request request{};
  request.call = Call::lock;
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
  request.call = Call::checkpoint;
  return ask(pid, request);
}

EXPORT Result cuCheckpointProcessRestore(int pid, RestoreArguments* arguments) {
  Request request{};
  request.call = Call::restore;
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
  request.call = Call::unlock;
  return ask(pid, request);
}

#endif
