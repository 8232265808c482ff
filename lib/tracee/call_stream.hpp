// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tracee/remote_syscalls.hpp"

namespace icecore {

/// Calls of one thread without end: a CallList that runs whenever it is full.
class CallStream {
 public:
  CallStream(RemoteSyscalls& remote, Tracee& thread, CallList list)
      : remote_(remote), thread_(thread), list_(std::move(list)) {}

  /// The list, with room for so much; addresses it gives out are good until the next room() or
  /// run().
  CallList& room(std::size_t calls, std::size_t bytes) {
    if (!list_.has_room(calls, bytes)) run();
    return list_;
  }

  bool has_room(std::size_t calls, std::size_t bytes) const noexcept {
    return list_.has_room(calls, bytes);
  }

  void call(const char* what, long number, std::initializer_list<std::uint64_t> arguments) {
    room(1, 0).call(what, number, arguments);
  }

  /// Runs what has been added.
  void run() {
    if (!list_.empty()) remote_.run(thread_, list_);
    list_.clear();
  }

  /// Runs what has been added, and shows it to `read` with the results.
  template <class Read>
  void run_and_read(Read read) {
    remote_.run(thread_, list_);
    read(list_);
    list_.clear();
  }

  /// Runs what has been added and gives the result of the call at `index`.
  std::int64_t run_for(std::size_t index) {
    remote_.run(thread_, list_);
    const std::int64_t result = list_.result(index);
    list_.clear();
    return result;
  }

  /// Runs what has been added and gives the results of all of it since the last run.
  std::vector<std::int64_t> run_for_all() {
    std::vector<std::int64_t> results;
    if (list_.empty()) return results;
    remote_.run(thread_, list_);
    for (std::size_t i = 0; i < list_.size(); ++i) results.push_back(list_.result(i));
    list_.clear();
    return results;
  }

 private:
  RemoteSyscalls& remote_;
  Tracee& thread_;
  CallList list_;
};

}  // namespace icecore
