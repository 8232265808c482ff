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
  if (pages.size() > kPageSize && is_cold(pages.data())) read_ahead(pages);  // not page by page
  return ::madvise(reinterpret_cast<void*>(start), end - start, kPopulateRead) == 0 ||
         errno == EINVAL;  // an older kernel, or not a mapping of a file (the fuzzer's)
}

bool is_cold(const std::byte* page) noexcept {
  unsigned char resident = 1;
  const auto address = reinterpret_cast<std::uintptr_t>(page) / kPageSize * kPageSize;
  return ::mincore(reinterpret_cast<void*>(address), kPageSize, &resident) == 0 &&
         (resident & 1) == 0;
}

void read_ahead(std::span<const std::byte> bytes) noexcept {
  if (bytes.empty()) return;
  const auto start = reinterpret_cast<std::uintptr_t>(bytes.data()) / kPageSize * kPageSize;
  const auto end = reinterpret_cast<std::uintptr_t>(bytes.data() + bytes.size());
  ::madvise(reinterpret_cast<void*>(start), end - start, MADV_WILLNEED);
}

}  // namespace icecore::sys
