// SPDX-License-Identifier: Apache-2.0
#include "sys/mapping.hpp"

#include <sys/mman.h>

#include "sys/call.hpp"

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

Mapping Mapping::shared(const Fd& file, std::size_t size_bytes) {
  return {map(size_bytes, MAP_SHARED, file.get()), size_bytes};
}

Mapping::~Mapping() {
  if (address_ != nullptr) ::munmap(address_, size_);
}

}  // namespace icecore::sys
