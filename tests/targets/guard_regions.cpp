// SPDX-License-Identifier: Apache-2.0
//
// State: memory with guard regions (MADV_GUARD_INSTALL): small and large, and of a private file.
//   "guard"    makes more of them, over pages with contents
//   "unguard"  removes these: what lay under them is gone, so they are zeros
#include "memory.hpp"

using namespace target;

static constexpr int kGuardInstall = 102, kGuardRemove = 103;

static bool guarded(std::size_t index) { return index % 16 == 3 || (index >= 40 && index < 44); }
static bool guarded_later(std::size_t index) { return index % 16 == 5; }

int main(int, char** arguments) {
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
  const Pages later = map(1024, MAP_PRIVATE | MAP_ANONYMOUS);
  for (std::size_t index = 0; index < later.count; ++index) fill(later, index, seed);
  enum class Guards { none, there, gone } guards = Guards::none;
  const auto change = [&](int advice, Guards to) {
    for (std::size_t index = 0; index < later.count; ++index)
      if (guarded_later(index))
        require(::madvise(later.page(index), kPageSize, advice) == 0, "change a guard");
    guards = to;
    return "ok";
  };
  const auto check = [&] {
    for (const Pages& pages : all)
      for (std::size_t index = 0; index < pages.count; ++index) {
        require(readable(pages.page(index)) != guarded(index),
                "guard or not, page " + std::to_string(index));
        if (!guarded(index) && index % 2 == 0) expect(pages, index, seed);
      }
    for (std::size_t index = 0; index < later.count; ++index) {
      const bool special = guards != Guards::none && guarded_later(index);
      if (!special)
        expect(later, index, seed);
      else if (guards == Guards::there)
        require(!readable(later.page(index)), "a later guard, page " + std::to_string(index));
      else
        require(later.words(index)[7] == 0, "under a guard, page " + std::to_string(index));
    }
  };
  return serve(check, {{"guard", [&](auto&) { return change(kGuardInstall, Guards::there); }},
                       {"unguard", [&](auto&) { return change(kGuardRemove, Guards::gone); }}});
}
