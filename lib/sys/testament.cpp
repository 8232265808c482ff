// SPDX-License-Identifier: Apache-2.0
#include "sys/testament.hpp"

#include <fcntl.h>
#include <linux/sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "sys/call.hpp"
#include "sys/process.hpp"
#include "sys/raw_call.hpp"

extern "C" long icecore_clone3(struct clone_args* arguments, std::size_t size, void (*child)(void*),
                               void* argument);

namespace icecore::sys {
namespace {

constexpr std::size_t kTestamentStackBytes = 64 << 10;

}  // namespace

/// Runs in the child: no libc, no errno, nothing that a sanitizer would instrument.
__attribute__((no_sanitize("address", "undefined", "thread"), noinline)) void Testament::execute(
    void* argument) {
  const auto* const orders = static_cast<const Orders*>(argument);
  raw_call(SYS_close, orders->other_end);
  char revoked = 0;
  if (raw_call(SYS_read, orders->wait, reinterpret_cast<long>(&revoked), 1) == 0) {
    for (std::size_t i = __atomic_load_n(&orders->settled, __ATOMIC_ACQUIRE); i < orders->count;
         ++i) {
      const LastCall* const call = orders->calls + i;
      const auto* const a = reinterpret_cast<const long*>(&call->arguments);
      raw_call(call->number, a[0], a[1], a[2], a[3], a[4]);
    }
  }
  raw_call(SYS_exit, 0);
}

Testament::Testament(std::vector<LastCall> calls, std::size_t settled)
    : calls_(std::move(calls)), stack_(Mapping::anonymous(kTestamentStackBytes)) {
  int ends[2];
  checked([&] { return ::pipe2(ends, O_CLOEXEC); }, "make a pipe");
  wait_ = Fd{ends[0]};
  end_ = Fd{ends[1]};
  orders_ = {wait_.get(), end_.get(), calls_.data(), calls_.size(), settled};
  struct ::clone_args arguments {};
  arguments.flags = CLONE_VM;
  arguments.stack = reinterpret_cast<std::uint64_t>(stack_.data());
  arguments.stack_size = stack_.size();
  const SignalsBlocked blocked;  // no signal is to end it
  const long pid = icecore_clone3(&arguments, sizeof arguments, execute, &orders_);
  if (pid < 0) throw_errno(static_cast<int>(-pid), "make a process");
  executor_ = static_cast<pid_t>(pid);
}

void Testament::settle(std::size_t count) noexcept {
  __atomic_store_n(&orders_.settled, count, __ATOMIC_RELEASE);
}

Testament::~Testament() {
  const char revoked = 1;
  while (::write(end_.get(), &revoked, 1) == -1 && errno == EINTR) {
  }
  // It runs on our stack_.
  while (::waitpid(executor_, nullptr, static_cast<int>(__WCLONE)) == -1 && errno == EINTR) {
  }
}

}  // namespace icecore::sys
