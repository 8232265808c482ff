// SPDX-License-Identifier: Apache-2.0
#pragma once

// The pager as a process of its own: started by the library, it serves a restored process for as
// long as pages are missing, and outlives whoever restored.
//
// It is two processes, with one table of descriptors: a worker, which answers faults, and its
// keeper, which waits for it.  When either dies the other takes its place, so that the userfaultfd
// is never closed while pages are missing: the kernel would then give zeros.

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>

#include "image/mapped_file.hpp"
#include "pager/shared.hpp"
#include "sys/fd.hpp"
#include "sys/userfaultfd.hpp"

namespace icecore::pager {

/// The main function of the program icecore-pager.  Its descriptor 3 is a socket, 4 the image.
int run() noexcept;

/// The library's side of one pager.  Destroying it ends the pager, or waits until it has ended
/// because the process has, unless release() was called: then it goes on alone.
class PagerProcess {
 public:
  /// Starts it, so that it opens the image while we do other things.
  /// Throws Errc::io when the program is not installed.
  explicit PagerProcess(const MappedFile& image);
  PagerProcess(PagerProcess&&) noexcept;
  PagerProcess& operator=(PagerProcess&&) = delete;
  ~PagerProcess();

  /// Hands the faults of a process over, which does not run yet.  Returns when they are served.
  void serve(const Orders& orders, const sys::Userfaultfd& faults, const sys::Fd& process);

  /// The process runs: whatever becomes of us, it is served.
  void release() noexcept {
    released_ = true;
    shared_->head().waits = 0;
  }

  const Head& head() const noexcept { return shared_->head(); }

  /// Waits until nothing is missing any more, or nobody is left.  False when `patience` is over.
  bool wait_filled(std::optional<std::chrono::milliseconds> patience) const;

  /// Between the end of the process and its reaping: while it records it has something to look at.
  void let_it_see_the_end() const;

  int fd() const noexcept { return socket_.get(); }

  /// What the pager has to say, if anything: why memory was lost.
  std::optional<std::string> message() const;

 private:
  void reap() noexcept;

  bool released_ = false;
  pid_t pid_ = 0;  // reaped as soon as it has made itself independent
  sys::Fd socket_;
  std::optional<Shared> shared_;
};

}  // namespace icecore::pager
