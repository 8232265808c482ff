// SPDX-License-Identifier: Apache-2.0
//
// State: private anonymous memory: written, zero and untouched pages, a 1 TiB reservation with two
// pages in use, and pages with contents that may not be written or not even be read.
#include "memory.hpp"

using namespace target;

constexpr int kPrivate = MAP_PRIVATE | MAP_ANONYMOUS;
constexpr std::size_t kTebibyte = 1ull << 40;

int main() {
  const std::uint64_t seed = random_number();
  const Pages pages = map(256, kPrivate);  // 0-99 written, 100-149 written with zeros, then holes
  for (std::size_t index = 0; index < 100; ++index) fill(pages, index, seed);
  std::memset(pages.page(100), 0, 50 * kPageSize);
  fill(pages, 200, seed);

  const Pages reserved = map(kTebibyte / kPageSize, kPrivate | MAP_NORESERVE, PROT_NONE);
  const std::size_t used[] = {123'456, 200'000'000};
  for (const std::size_t index : used) {
    protect(reserved, index, PROT_READ | PROT_WRITE);
    fill(reserved, index, seed);
  }

  const Pages guarded = map(8, kPrivate);
  for (std::size_t index = 0; index < 8; ++index) fill(guarded, index, seed);
  protect(guarded, 2, PROT_READ);
  protect(guarded, 4, PROT_NONE);
  protect(guarded, 6, PROT_READ | PROT_EXEC);

  return serve([&] {
    for (std::size_t index = 0; index < 100; ++index) expect(pages, index, seed);
    expect(pages, 200, seed);
    for (std::size_t index = 150; index < 256; ++index)
      require(materialised(pages, index) == (index == 200),
              "page " + std::to_string(index) + ", untouched, takes memory");
    for (std::size_t index = 100; index < 150; ++index) expect_zero(pages, index);
    for (const std::size_t index : used) expect(reserved, index, seed);
    protect(guarded, 4, PROT_READ);
    for (std::size_t index = 0; index < 8; ++index) expect(guarded, index, seed);
    protect(guarded, 4, PROT_NONE);
  });
}
