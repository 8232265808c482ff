// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include "sys/fd.hpp"

namespace icecore::sys {

/// Owns a mapping in our own address space.
class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(address_, other.address_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Mapping();

  /// Fresh private memory, readable and writable.
  static Mapping anonymous(std::size_t size_bytes);

  /// The same, of huge pages where the kernel has any to spare: it is cleared at the first touch of
  /// each 2 MiB, which takes a third of the time that 512 pages take.  (MADV_HUGEPAGE)
  static Mapping huge(std::size_t size_bytes);

  /// A shared, writable view of the first `size_bytes` of `file`.
  static Mapping shared(const Fd& file, std::size_t size_bytes);

  std::byte* data() const noexcept { return address_; }
  std::size_t size() const noexcept { return size_; }
  std::span<std::byte> bytes() const noexcept { return {address_, size_}; }

 private:
  Mapping(std::byte* address, std::size_t size_bytes) : address_(address), size_(size_bytes) {}

  std::byte* address_ = nullptr;
  std::size_t size_ = 0;
};

/// Reads pages of a mapped file into memory.  False when they cannot be read: the file has become
/// shorter, or the disk fails.  Touching such pages would be SIGBUS.  (MADV_POPULATE_READ, Linux
/// 5.14.)
bool try_populate(std::span<const std::byte> pages) noexcept;

/// Whether this page of a mapped file would have to be read from the disk.  Where that is not for
/// us to know (mincore(2) of a file that we may not write), false.
bool is_cold(const std::byte* page) noexcept;

/// Has the kernel read a part of a mapped file into the page cache, without waiting for the bytes.
void read_ahead(std::span<const std::byte> bytes) noexcept;

}  // namespace icecore::sys
