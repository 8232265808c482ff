// SPDX-License-Identifier: Apache-2.0
#include "tracee/stub_process.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "sys/call.hpp"
#include "sys/check.hpp"
#include "sys/files.hpp"
#include "sys/page.hpp"
#include "sys/process.hpp"
#include "sys/procfs.hpp"
#include "sys/spawn.hpp"
#include "tracee/remote_syscalls.hpp"

extern "C" {
extern const std::byte icecore_stub_begin[];
extern const std::byte icecore_stub_end[];
extern const std::byte icecore_stub_syscall[];
extern const std::byte icecore_stub_init[];
}

namespace icecore {
namespace {

constexpr std::uint64_t kStubAddress = 0x10000;  // arch/x86_64/stub.S
constexpr int kArea = 3;

std::uint64_t address_of(const std::byte* code) {
  return kStubAddress + static_cast<std::uint64_t>(code - icecore_stub_begin);
}

sys::Fd stub_program() {
  sys::Fd program = sys::make_memory_file("icecore-stub");
  sys::write_all(program, {icecore_stub_begin, icecore_stub_end}, 0);
  return program;
}

}  // namespace

StubProcess::StubProcess(std::size_t area_bytes, pid_t pid, bool namespaces) {
  const sys::Fd program = stub_program();
  const sys::Fd area = sys::make_memory_file("icecore-area");
  sys::resize_file(area, area_bytes);
  area_ = sys::Mapping::shared(area, area_bytes);
  auto [ours, theirs] = sys::make_socket_pair();
  socket_ = std::move(ours);
  sys::Spawned spawned = sys::spawn_stopped(
      {.program = program, .first = area, .second = theirs, .pid = pid, .namespaces = namespaces});
  pid_ = spawned.pid;
  pidfd_ = std::move(spawned.pidfd);
  threads_.emplace_back(pid_, sys::Stop{.kind = sys::Stop::Kind::trap});
  leader().set_inner_tid(pid != 0 ? pid : namespaces ? 1 : pid_);
  mappings_ = sys::read_smaps(pid_);
}

StubProcess::~StubProcess() {
  for (Tracee& thread : threads_) thread.forget();
  if (pid_ == 0) return;
  const auto reap = [](pid_t tid) {
    while (sys::wait_stop(tid).kind != sys::Stop::Kind::exited) {
    }
  };
  try {
    sys::send_signal(pidfd_, SIGKILL);
    // The leader can only be reaped when all other threads, which we trace, have been.
    for (const pid_t tid : sys::list_threads(pid_))
      if (tid != pid_) reap(tid);
    reap(pid_);
  } catch (const Error&) {
    // Already gone, and reaped by somebody else.
  }
}

void StubProcess::adopt(pid_t tid, pid_t inner_tid) {
  const sys::Stop stop = sys::wait_stop(tid);
  if (stop.kind != sys::Stop::Kind::trap)
    throw Error{Errc::internal, fmt::format("new thread {} is not stopped at its start", tid)};
  threads_.emplace_back(tid, stop);
  threads_.back().set_inner_tid(inner_tid);
}

std::uint64_t StubProcess::syscall_instruction() const noexcept {
  return address_of(icecore_stub_syscall);
}

std::uint64_t StubProcess::init_code() const noexcept { return address_of(icecore_stub_init); }

void StubProcess::map_area(std::uint64_t address) {
  const auto map = [&](std::uint64_t offset, std::uint64_t size, std::uint64_t protection) {
    const std::int64_t mapped = single_syscall(
        leader(), syscall_instruction(), SYS_mmap,
        {address + offset, size, protection, MAP_SHARED | MAP_FIXED_NOREPLACE, kArea, offset});
    if (mapped < 0) sys::throw_errno(static_cast<int>(-mapped), "map memory in the new process");
    ICECORE_CHECK(static_cast<std::uint64_t>(mapped) == address + offset);
  };
  map(0, kPageSize, PROT_READ | PROT_EXEC);
  map(kPageSize, area_.size() - kPageSize, PROT_READ | PROT_WRITE);
}

sys::Fd StubProcess::let_run() noexcept {
  // The leader last: a thread that waits for it in a futex is better back there before it runs.
  for (auto thread = threads_.rbegin(); thread != threads_.rend(); ++thread) {
    if (thread->tid() == 0) continue;  // already on its way
    const auto& signal = thread->suspended_signal();
    sys::detach(thread->tid(), signal ? signal->si_signo : 0);
    thread->forget();
  }
  pid_ = 0;
  return std::move(pidfd_);
}

}  // namespace icecore
