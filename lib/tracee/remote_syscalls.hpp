// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/syscall.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "sys/mapping.hpp"
#include "sys/remote_memory.hpp"
#include "tracee/foothold.hpp"
#include "tracee/tracee.hpp"

namespace icecore {

/// One system call of a CallList, as the loop in the tracee reads it.
struct RemoteCall {
  std::uint64_t number;
  std::uint64_t arguments[6];
  std::int64_t result;
};
static_assert(sizeof(RemoteCall) == 64);

/// What a CallList takes in the tracee besides its calls and data.
constexpr std::size_t kListBytes = 256;

/// System calls that one thread of a tracee makes in one go, with the memory they work on.
///
/// Filled here, run by RemoteSyscalls, read afterwards.
class CallList {
 public:
  /// Room in the tracee: `size_bytes` at `remote`, of which `max_calls` calls.
  CallList(std::uint64_t remote, std::size_t size_bytes, std::size_t max_calls);

  /// Puts bytes where the calls find them; returns their address in the tracee.
  std::uint64_t put(std::span<const std::byte> bytes);
  template <class Value>
  std::uint64_t put_value(const Value& value) {
    return put(std::as_bytes(std::span{&value, 1}));
  }
  std::uint64_t put_string(const std::string& text) {
    return put(std::as_bytes(std::span{text.c_str(), text.size() + 1}));
  }

  /// Room that a call fills; its address in the tracee.
  std::uint64_t reserve(std::size_t size_bytes);

  /// Adds a call that must succeed.  `what`, a literal, says what it does, for when it does not.
  std::size_t call(const char* what, long number, std::initializer_list<std::uint64_t> arguments);

  /// Adds a call whose failure the caller looks at.
  std::size_t try_call(long number, std::initializer_list<std::uint64_t> arguments);

  /// Reads a byte of each page, as the process itself would.  Pages after one that cannot be read
  /// are left alone; nothing is said of it.
  void touch(std::uint64_t address, std::uint64_t pages);

  bool has_room(std::size_t calls, std::size_t bytes) const noexcept;
  bool empty() const noexcept { return calls_.empty(); }
  std::size_t size() const noexcept { return calls_.size(); }
  void clear() noexcept;

  /// What it takes in the tracee: [remote, used_end).
  std::uint64_t remote() const noexcept { return remote_; }
  std::uint64_t used_end() const noexcept { return data_remote() + data_.size(); }

  // After the run:
  std::int64_t result(std::size_t call) const { return calls_[call].result; }
  std::span<const std::byte> bytes(std::uint64_t remote, std::size_t size_bytes) const;
  template <class Value>
  Value value(std::uint64_t remote) const {
    Value value;
    std::memcpy(&value, bytes(remote, sizeof value).data(), sizeof value);
    return value;
  }

 private:
  friend class RemoteSyscalls;
  std::uint64_t data_remote() const noexcept;
  void throw_first_failure() const;

  std::uint64_t remote_;
  std::size_t size_bytes_;
  std::size_t max_calls_;
  std::vector<RemoteCall> calls_;
  std::vector<const char*> what_;  // nullptr: may fail
  std::vector<std::byte> data_;
};

/// The loop that runs CallLists inside a traced process, and the memory it needs there.
///
/// A call costs 0.2 µs this way, against 8 to 30 µs by ptrace alone.
class RemoteSyscalls {
 public:
  /// Puts memory for lists into a process that is to run on afterwards, and the loop where
  /// `foothold`, which must live longer, has none.  The destructor takes it out again.
  /// If we die in between, the threads go on from where they were and only an unused mapping is
  /// left.
  RemoteSyscalls(Foothold& foothold, Tracee& leader, const sys::RemoteMemory& memory,
                 std::size_t size_bytes);

  /// Uses memory that the tracee shares with us at `remote`: `area` is our view of it.  `inner_pid`
  /// is the id of the process as it knows it itself.
  RemoteSyscalls(const sys::Mapping& area, std::uint64_t remote, pid_t inner_pid);

  RemoteSyscalls(const RemoteSyscalls&) = delete;
  RemoteSyscalls& operator=(const RemoteSyscalls&) = delete;
  ~RemoteSyscalls();

  /// Where the code lies in the tracee, and where CallLists may: [data_begin, data_end).
  std::uint64_t code() const noexcept { return code_; }
  std::uint64_t data_begin() const noexcept { return data_; }
  std::uint64_t data_end() const noexcept { return remote_ + size_bytes_; }

  /// Where, in the code, a thread can be made to enter the kernel.
  std::uint64_t syscall_instruction() const noexcept;

  struct Job {
    Tracee* thread;
    CallList* list;
    bool make_room_for_tiles = false;  ///< gives the thread room for AMX tile data
  };

  /// Runs every list on its thread, all at the same time.  Throws Errc::target_gone when a thread
  /// dies, or the error of the first call that failed and must not.  The threads are then stopped
  /// again, with registers and signal mask that Tracee::put_back() puts right.
  void run(std::span<const Job> jobs);
  void run(Tracee& thread, CallList& list) {
    const Job job{&thread, &list};
    run({&job, 1});
  }

  /// The signal with which threads report the end of a list.  It must not be pending in any of
  /// them, and should be one that they ignore.
  void report_with(int signal) noexcept { report_signal_ = signal; }

 private:
  void put_lists(std::span<const Job> jobs, const sys::RemoteRange& place,
                 std::span<std::byte> view) const;
  static void take_lists(std::span<const Job> jobs, const sys::RemoteRange& place,
                         std::span<const std::byte> view);
  void start(const Job& job) const;

  Tracee* injected_into_ = nullptr;
  Foothold* foothold_ = nullptr;
  const sys::RemoteMemory* memory_ = nullptr;
  pid_t inner_pid_;
  std::span<std::byte> local_;  // our view of shared memory, else empty
  std::uint64_t remote_ = 0;
  std::size_t size_bytes_ = 0;
  std::uint64_t code_ = 0;
  std::uint64_t data_ = 0;
  int report_signal_;
};

/// Makes one system call in a stopped thread by ptrace alone: 8 to 30 µs.  The thread is then
/// stopped with changed registers.
std::int64_t single_syscall(Tracee& thread, std::uint64_t syscall_instruction, long number,
                            std::initializer_list<std::uint64_t> arguments);

/// Moves a thread that is stopped at a system call to a stop from which the kernel looks at the
/// registers that it is given: it restarts a call that they are in the middle of.
void stop_before_user_code(Tracee& thread);

}  // namespace icecore
