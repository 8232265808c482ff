// SPDX-License-Identifier: Apache-2.0
#pragma once

// Snapshot of a process whose memory is still being loaded: what is missing is taken from the image
// it waits for, not loaded into it first.

#include <sys/types.h>

#include <memory>
#include <optional>

#include "image/image_reader.hpp"
#include "image/mapped_file.hpp"
#include "memory/missing_pages.hpp"
#include "sys/fd.hpp"

namespace icecore::pager {

/// What a pager has not loaded yet.  While this lives it loads nothing but what is touched.
class Loan {
 public:
  /// From the pager of a process that stands still, of which `process` is a pidfd; nothing when it
  /// has none.
  /// Throws Errc::io when the pager does not answer, Errc::corrupt_image.
  static std::optional<Loan> take(pid_t pid, const sys::Fd& process);

  /// Waits for stored pages of image(), unless a page is there: then that is the truth.
  const MissingPages& missing() const noexcept { return missing_; }
  const ImageReader& image() const noexcept { return *image_; }

 private:
  Loan(sys::Fd pager, MappedFile image, const sys::Fd& ranges);

  sys::Fd pager_;
  MappedFile file_;
  std::unique_ptr<const ImageReader> image_;
  MissingPages missing_;
};

/// The pager's side: answers whoever has connected.
void lend(const sys::Fd& borrower, const sys::Fd& image, const MissingPages& missing);

/// Where the pager of a process can be found; abstract, so it goes with the pager.  `process`: a
/// pidfd.  Another process may have the same id while this one's pager has not quite ended.
std::string address_of(pid_t pid, const sys::Fd& process);

}  // namespace icecore::pager
