// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "sys/fd.hpp"

namespace icecore {

struct FileRange {
  std::uint64_t offset;
  std::uint64_t size_bytes;
};

/// Parts of one file that will be read soon.
struct FileToRead {
  std::string path;
  const sys::Fd* open = nullptr;  ///< instead of the path
  std::vector<FileRange> ranges = {};
};

/// Has the disk read what will be needed, on threads of its own, while its owner does other things.
/// Where it is in the page cache already, that costs next to nothing.  What cannot be read is left
/// to whoever needs it.
class ReadAhead {
 public:
  explicit ReadAhead(std::vector<FileToRead> files);
  ~ReadAhead();

 private:
  void work();

  const std::vector<FileToRead> files_;
  std::atomic<std::size_t> next_{0};
  std::vector<std::jthread> threads_;
};

/// Joins what lies so close together that a disk reads it in one go.  Ascending.
std::vector<FileRange> joined(std::vector<FileRange> ranges);

}  // namespace icecore
