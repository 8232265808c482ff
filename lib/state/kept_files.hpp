// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <stop_token>
#include <string>
#include <vector>

#include "image/state_generated.h"
#include "memory/page_store.hpp"
#include "sys/files.hpp"

namespace icecore {

/// The files of an image whose contents it holds, made anew without a name: memfds, and files on
/// the file system where they once had one.
class KeptFiles {
 public:
  /// Makes and fills them.  `root` stands before every path.  Throws Errc::corrupt_image, or
  /// Errc::cancelled.
  KeptFiles(const state::ProcessT& image, const PageStore& store, const std::string& root,
            const std::stop_token& stop);

  /// A new description of file `index` of the image, kept or not.
  sys::Fd open(std::int32_t index, int flags);

  /// Adds what would have forbidden the mappings.  Last call, when they are there.
  void seal() const;

 private:
  sys::Fd make(const state::FileT& file, const PageStore& store, const std::stop_token& stop) const;

  const state::ProcessT& image_;
  const std::string& root_;
  std::vector<sys::Fd> files_;    // by index; empty where the file has a name
  std::vector<bool> given_away_;  // the description that made it
};

}  // namespace icecore
