// SPDX-License-Identifier: Apache-2.0
//
// State: memory with guard regions (MADV_GUARD_INSTALL): small and large, and of a private file.
#include "memory.hpp"

using namespace target;

static bool guarded(std::size_t index) { return index % 16 == 3 || (index >= 40 && index < 44); }

int main(int, char** arguments) {
  constexpr int kGuardInstall = 102;
  const std::uint64_t seed = random_number();
  const int file = make_file(std::string{arguments[1]} + "/file", 64, seed);
  const Pages all[] = {map(64, MAP_PRIVATE | MAP_ANONYMOUS), map(2048, MAP_PRIVATE | MAP_ANONYMOUS),
                       map(64, MAP_PRIVATE, PROT_READ | PROT_WRITE, file)};
  ::close(file);
  for (const Pages& pages : all) {
    for (std::size_t index = 0; index < pages.count; index += 2) fill(pages, index, seed);
    for (std::size_t index = 0; index < pages.count; ++index)
      if (guarded(index) && ::madvise(pages.page(index), kPageSize, kGuardInstall) != 0)
        return say("skip: MADV_GUARD_INSTALL: " + std::string{std::strerror(errno)}), 0;
  }
  return serve([&] {
    for (const Pages& pages : all)
      for (std::size_t index = 0; index < pages.count; ++index) {
        require(readable(pages.page(index)) != guarded(index),
                "guard or not, page " + std::to_string(index));
        if (!guarded(index) && index % 2 == 0) expect(pages, index, seed);
      }
  });
}
