// SPDX-License-Identifier: Apache-2.0
#include "sys/witness.hpp"

#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <span>
#include <vector>

#include "sys/call.hpp"
#include "sys/files.hpp"
#include "sys/mapping.hpp"
#include "sys/process.hpp"
#include "sys/raw_call.hpp"

extern "C" {
extern const std::byte icecore_witness_begin[];
extern const std::byte icecore_witness_ids[];
extern const std::byte icecore_witness_end[];
long icecore_clone3(struct clone_args* arguments, std::size_t size, void (*child)(void*),
                    void* argument);
}

namespace icecore::sys {
namespace {

constexpr std::size_t kWitnessStackBytes = 64 << 10;

/// Runs in the child, in our memory until it execs: no libc, no errno, nothing that a sanitizer
/// would instrument.
__attribute__((no_sanitize("address", "undefined", "thread"), noinline)) void become_witness(
    void* argument) {
  raw_call(SYS_close_range, 0, ~0U, CLOSE_RANGE_CLOEXEC);
  const char nothing[] = {'\0'};
  const char* none[] = {nullptr};
  raw_call(SYS_execveat, *static_cast<const int*>(argument), reinterpret_cast<long>(nothing),
           reinterpret_cast<long>(none), reinterpret_cast<long>(none), AT_EMPTY_PATH);
  raw_call(SYS_exit_group, 127);
}

Fd witness_program(std::uint32_t user, std::uint32_t group) {
  Fd program = make_memory_file("icecore-witness");
  write_all(program, {icecore_witness_begin, icecore_witness_end}, 0);
  const std::array ids{user, group};
  write_all(program, std::as_bytes(std::span{ids}),
            static_cast<std::uint64_t>(icecore_witness_ids - icecore_witness_begin));
  return program;
}

}  // namespace

std::optional<Witness> Witness::try_make(std::uint32_t user, std::uint32_t group) {
  const Fd program = witness_program(user, group);
  const Mapping stack = Mapping::anonymous(kWitnessStackBytes);
  int descriptor = program.get();
  struct ::clone_args arguments {};
  arguments.flags = CLONE_VM;
  arguments.stack = reinterpret_cast<std::uint64_t>(stack.data());
  arguments.stack_size = stack.size();
  const SignalsBlocked blocked;  // a handler of ours must not run in the child
  const long pid = icecore_clone3(&arguments, sizeof arguments, become_witness, &descriptor);
  if (pid < 0) throw_errno(static_cast<int>(-pid), "make a process");
  Witness witness{static_cast<pid_t>(pid)};
  siginfo_t end{};
  checked(
      [&] {
        return ::waitid(P_PID, static_cast<id_t>(pid), &end,
                        static_cast<int>(WEXITED | WNOWAIT | __WALL));
      },
      "wait for process {}", pid);
  if (end.si_code != CLD_EXITED || end.si_status != 0) return std::nullopt;
  return witness;
}

Witness::~Witness() {
  if (pid_ == 0) return;
  while (::waitpid(pid_, nullptr, static_cast<int>(__WALL)) == -1 && errno == EINTR) {
  }
}

}  // namespace icecore::sys
