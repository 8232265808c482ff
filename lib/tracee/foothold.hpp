// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "sys/proc_maps.hpp"
#include "sys/remote_memory.hpp"
#include "tracee/tracee.hpp"

namespace icecore {

/// Where a process can be made to call the kernel before it has any memory of ours: code in the
/// unused end of its vdso.
///
/// A thread that loses its tracer there puts its own registers and signal mask back and goes on, so
/// that icecore may die at any moment.  Only where the vdso has no room (none is known), a bare
/// system call instruction of the process has to do, and a tracer that dies within those
/// microseconds takes the thread with it.
class Foothold {
 public:
  /// Writes the code.  The process stands still; `report_signal` as for RemoteSyscalls.
  /// Throws Errc::unsupported when the process has no system call instruction at all.
  Foothold(const sys::RemoteMemory& memory, const std::vector<sys::Vma>& vmas, int report_signal);
  Foothold(const Foothold&) = delete;
  Foothold& operator=(const Foothold&) = delete;

  /// Takes the code out again.
  ~Foothold();

  /// Makes one system call.  The thread is then stopped, with registers and signal mask that
  /// Tracee::put_back() puts right.
  std::int64_t call(Tracee& thread, long number, std::initializer_list<std::uint64_t> arguments);

  /// Makes a copy of the process, by clone(2) with `flags`; its id, or a negative error number. The
  /// copy must be born traced: it never runs its program, and ends when it is not traced any more.
  /// -ENOSYS where the vdso has no room for that.
  std::int64_t copy_process(Tracee& thread, std::uint64_t flags);

  /// Takes the code out of a copy of the process.
  void clear(const sys::RemoteMemory& copy) const;

  /// Where the loop that RemoteSyscalls runs lies in the process; 0: it is not there.
  std::uint64_t loop() const noexcept { return room_; }

  int report_signal() const noexcept { return report_signal_; }

 private:
  void find_room(const sys::Vma& vdso);
  std::int64_t call_at(const std::byte* entry, Tracee& thread, long number,
                       std::initializer_list<std::uint64_t> arguments);
  std::int64_t call_bare(Tracee& thread, long number,
                         std::initializer_list<std::uint64_t> arguments);

  const sys::RemoteMemory& memory_;
  int report_signal_;
  std::uint64_t room_ = 0;                 // code, then a context; 0: there is none
  std::uint64_t syscall_instruction_ = 0;  // where there is no room
};

}  // namespace icecore
