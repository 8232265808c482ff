// SPDX-License-Identifier: Apache-2.0
//
// A page fault reads one piece of a file and waits for it; what a process changed in its mappings
// of 316 libraries is 700 such pieces, one after the other.  All of them asked for at once are read
// as fast as the disk can.
#include "memory/read_ahead.hpp"

#include <fcntl.h>

#include <algorithm>

#include "memory/worker.hpp"
#include "sys/files.hpp"

namespace icecore {
namespace {

/// Opening a file and finding its blocks waits for the disk, which serves several at once.
constexpr std::size_t kThreads = 4;

/// Below this much, threads cost more than they save.
constexpr std::uint64_t kWorthThreads = 512 << 10;

constexpr std::uint64_t kSmallGap = 32 << 10;

std::uint64_t total_bytes(const std::vector<FileToRead>& files) {
  std::uint64_t bytes = 0;
  for (const FileToRead& file : files)
    for (const FileRange& range : file.ranges) bytes += range.size_bytes;
  return bytes;
}

}  // namespace

ReadAhead::ReadAhead(std::vector<FileToRead> files) : files_(std::move(files)) {
  if (total_bytes(files_) < kWorthThreads) return;
  for (std::size_t i = 0; i < kThreads; ++i) threads_.push_back(start_worker([this] { work(); }));
}

ReadAhead::~ReadAhead() { next_ = files_.size(); }  // and then the threads are joined

void ReadAhead::work() {
  for (std::size_t i; (i = next_.fetch_add(1)) < files_.size();) {
    const FileToRead& file = files_[i];
    std::optional<sys::Fd> opened;
    if (file.open == nullptr) opened = sys::try_open_file(file.path, O_RDONLY | O_NONBLOCK);
    const sys::Fd* const fd = opened ? &*opened : file.open;
    if (fd == nullptr) continue;
    for (const FileRange& range : file.ranges) sys::read_ahead(*fd, range.offset, range.size_bytes);
  }
}

std::vector<FileRange> joined(std::vector<FileRange> ranges) {
  std::ranges::sort(ranges, {}, &FileRange::offset);
  std::vector<FileRange> result;
  for (const FileRange& range : ranges) {
    if (result.empty() ||
        range.offset > result.back().offset + result.back().size_bytes + kSmallGap) {
      result.push_back(range);
    } else {
      FileRange& last = result.back();
      last.size_bytes = std::max(last.size_bytes, range.offset + range.size_bytes - last.offset);
    }
  }
  return result;
}

}  // namespace icecore
