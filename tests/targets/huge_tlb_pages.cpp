// SPDX-License-Identifier: Apache-2.0
//
// State: private memory of huge pages (MAP_HUGETLB), some of them written to.
#include "memory.hpp"

using namespace target;

int main() {
  constexpr std::size_t kHugePage = 512;  // in small ones
  if (read_file("/proc/sys/vm/nr_overcommit_hugepages") == "0\n") {
    const int file = ::open("/proc/sys/vm/nr_overcommit_hugepages", O_WRONLY | O_CLOEXEC);
    if (::write(file, "64", 2) != 2) return say("skip: no huge pages, nor may they be had"), 0;
    ::close(file);
  }
  void* const start = ::mmap(nullptr, 4 * kHugePage * kPageSize, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  if (start == MAP_FAILED) return say("skip: MAP_HUGETLB: " + std::string{std::strerror(errno)}), 0;
  const Pages pages{static_cast<char*>(start), 4 * kHugePage};
  const std::uint64_t seed = random_number();
  const auto written = [](std::size_t index) {
    return index < kHugePage ? index % 3 == 0 : index == 3 * kHugePage;
  };
  for (std::size_t index = 0; index < pages.count; ++index)
    if (written(index)) fill(pages, index, seed);
  return serve([&] {
    require(has_flag(pages.start, "ht"), "these are no huge pages");
    for (std::size_t index = 0; index < pages.count; ++index) {
      if (index >= kHugePage && index < 3 * kHugePage) continue;  // never touched
      written(index) ? expect(pages, index, seed) : expect_zero(pages, index);
    }
  });
}
