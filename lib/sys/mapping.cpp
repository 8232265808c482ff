// SPDX-License-Identifier: Apache-2.0
#include "sys/mapping.hpp"

#include <sys/mman.h>

#include "sys/call.hpp"
#include "sys/page.hpp"

namespace icecore::sys {
namespace {

std::byte* map(std::size_t size_bytes, int flags, int fd) {
  void* const address = ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (address == MAP_FAILED) throw_errno(errno, fmt::format("map {} bytes", size_bytes));
  return static_cast<std::byte*>(address);
}

}  // namespace

Mapping Mapping::anonymous(std::size_t size_bytes) {
  return {map(size_bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1), size_bytes};
}

// The kernel aligns it by itself where the size is a multiple of 2 MiB (Linux 6.7).
Mapping Mapping::huge(std::size_t size_bytes) {
  Mapping mapping = anonymous(size_bytes);
  ::madvise(mapping.address_, size_bytes, MADV_HUGEPAGE);
  return mapping;
}

Mapping Mapping::shared(const Fd& file, std::size_t size_bytes) {
  return {map(size_bytes, MAP_SHARED, file.get()), size_bytes};
}

Mapping::~Mapping() {
  if (address_ != nullptr) ::munmap(address_, size_);
}

bool try_populate(std::span<const std::byte> pages) noexcept {
  constexpr int kPopulateRead = 22;  // MADV_POPULATE_READ
  const auto start = reinterpret_cast<std::uintptr_t>(pages.data()) / kPageSize * kPageSize;
  const auto end = reinterpret_cast<std::uintptr_t>(pages.data() + pages.size());
  return ::madvise(reinterpret_cast<void*>(start), end - start, kPopulateRead) == 0 ||
         errno == EINVAL;  // an older kernel, or not a mapping of a file (the fuzzer's)
}

}  // namespace icecore::sys
