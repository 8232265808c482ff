// SPDX-License-Identifier: Apache-2.0
#include "sys/memory_features.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "sys/mapping.hpp"
#include "sys/page.hpp"
#include "sys/procfs.hpp"

namespace icecore::sys {
namespace {}  // namespace

bool has_droppable_memory() noexcept {
  constexpr int kMapDroppable = 8;
  void* const page =
      ::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, kMapDroppable | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return false;
  ::munmap(page, kPageSize);
  return true;
}

bool has_sealing() noexcept {
  constexpr long kMseal = 462;
  return ::syscall(kMseal, 0, 0, 0) == 0;  // of nothing
}

bool has_guard_pages() noexcept {
  constexpr int kGuardInstall = 102;
  const Mapping page = Mapping::anonymous(kPageSize);
  return ::madvise(page.data(), kPageSize, kGuardInstall) == 0;
}

bool takes_memory_policy(std::uint32_t mode, std::span<const std::uint64_t> nodes) {
  constexpr int kOfAddress = 2;  // MPOL_F_ADDR
  constexpr std::size_t kMostWords = 16;
  if (nodes.size() > kMostWords) return false;
  const Mapping page = Mapping::anonymous(kPageSize);
  // One more than there are: the kernel takes one off.
  if (::syscall(SYS_mbind, page.data(), kPageSize, mode, nodes.data(), nodes.size() * 64 + 1, 0) !=
      0)
    return false;
  std::uint32_t mode_now = 0;
  std::array<std::uint64_t, kMostWords> nodes_now{};
  if (::syscall(SYS_get_mempolicy, &mode_now, nodes_now.data(), kMostWords * 64, page.data(),
                kOfAddress) != 0)
    return false;
  std::array<std::uint64_t, kMostWords> wanted{};
  std::ranges::copy(nodes, wanted.begin());
  return mode_now == mode && nodes_now == wanted;
}

std::uint64_t free_huge_pages(std::uint64_t size_bytes) {
  const auto number = [&](const char* name) {
    const auto text = try_read_file(
        fmt::format("/sys/kernel/mm/hugepages/hugepages-{}kB/{}", size_bytes / 1024, name));
    return text ? std::strtoull(text->c_str(), nullptr, 10) : 0;
  };
  const auto overcommit = number("nr_overcommit_hugepages"), surplus = number("surplus_hugepages");
  const auto free = number("free_hugepages") + (overcommit > surplus ? overcommit - surplus : 0);
  const auto reserved = number("resv_hugepages");
  return free > reserved ? free - reserved : 0;
}

}  // namespace icecore::sys
