// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <vector>

#include "sys/fd.hpp"
#include "sys/mapping.hpp"
#include "sys/proc_maps.hpp"
#include "tracee/tracee.hpp"

namespace icecore {

/// A process of ours that is nothing yet: one stopped thread in a nearly empty address space, on
/// its way to become the restored process.
///
/// Destroying it kills it and everything it has become, unless release() was called.  Use it on the
/// thread that made it.
class StubProcess {
 public:
  /// `area_bytes`: size of the memory it shares with us.  `pid`: wanted, 0 for any.
  /// `namespaces`: as init of a new pid namespace with a mount namespace of its own.
  StubProcess(std::size_t area_bytes, pid_t pid, bool namespaces);
  StubProcess(const StubProcess&) = delete;
  StubProcess& operator=(const StubProcess&) = delete;
  ~StubProcess();

  pid_t pid() const noexcept { return pid_; }
  const sys::Fd& pidfd() const noexcept { return pidfd_; }

  /// Its threads, all stopped; the leader first.
  std::deque<Tracee>& threads() noexcept { return threads_; }
  Tracee& leader() noexcept { return threads_.front(); }

  /// Takes over a thread that the process has just made with CLONE_PTRACE.  `tid` as seen by us.
  void adopt(pid_t tid, pid_t inner_tid);

  /// The mappings it has by itself.
  const std::vector<sys::Vma>& mappings() const noexcept { return mappings_; }

  /// Maps the shared memory at `address` in the process: one page of code, the rest for data.
  void map_area(std::uint64_t address);
  const sys::Mapping& area() const noexcept { return area_; }

  /// Our end of a socket whose other end is descriptor kSocket of the process.
  const sys::Fd& socket() const noexcept { return socket_; }
  static constexpr int kSocket = 4;

  /// Where the process can be made to enter the kernel as long as its first mappings exist.
  std::uint64_t syscall_instruction() const noexcept;

  /// Where an init of a pid namespace goes on: it waits for the pidfd in rbx, then for all
  /// children.
  std::uint64_t init_code() const noexcept;

  /// Lets every thread run from the registers it now has.  The destructor then does nothing.
  /// Returns the pidfd.
  sys::Fd let_run() noexcept;

 private:
  sys::Mapping area_;
  sys::Fd socket_;
  pid_t pid_ = 0;
  sys::Fd pidfd_;
  std::deque<Tracee> threads_;  // a deque: what refers to one stays good when others come
  std::vector<sys::Vma> mappings_;
};

}  // namespace icecore
