// SPDX-License-Identifier: Apache-2.0
#include "memory/page_store.hpp"

#include <catch2/catch.hpp>

#include "image/failure.hpp"
#include "image/sample_image.hpp"

namespace icecore::test::page_store_test {

/// Sixty-four pages of heap and one of stack.
struct OpenSample {
  explicit OpenSample(Encoding encoding)
      : bytes(image_bytes(sample_manifest(), sample_memory(64), encoding)) {}

  std::vector<std::byte> bytes;
  Memory memory = sample_memory(64);
  ImageReader reader{bytes};
  PageStore store{reader};
};

TEST_CASE("any run of pages can be read, in any order", "[store]") {
  const OpenSample sample{GENERATE(Encoding::raw, Encoding::zstd)};
  PageStore::Scratch scratch;
  std::mt19937 random{1};
  for (int i = 0; i < 500; ++i) {
    const std::uint64_t first = random() % 65;
    const std::uint64_t count = 1 + random() % std::min(PageStore::kMaxPages, 65 - first);
    const auto pages = sample.store.read(first, count, scratch);
    const auto expected =
        std::span{sample.memory.bytes}.subspan(first * kPageSize, count * kPageSize);
    if (!same_bytes(pages, expected)) FAIL(count << " pages at " << first);
  }
}

TEST_CASE("raw pages are read where they lie", "[store]") {
  const OpenSample sample{Encoding::raw};
  PageStore::Scratch scratch;
  const auto pages = sample.store.read(2, 3, scratch);
  CHECK(pages.data() == sample.bytes.data() + kPageSize + 2 * kPageSize);
}

TEST_CASE("a frame that was just decoded is not decoded again", "[store]") {
  const OpenSample sample{Encoding::zstd};
  PageStore::Scratch scratch;
  const auto* const page = sample.store.read(3, 1, scratch).data();
  CHECK(sample.store.read(15, 1, scratch).data() == page + 12 * kPageSize);
  CHECK(sample.store.read(0, 16, scratch).data() == page - 3 * kPageSize);
}

TEST_CASE("reading nothing gives nothing", "[store]") {
  const OpenSample sample{GENERATE(Encoding::raw, Encoding::zstd)};
  PageStore::Scratch scratch;
  CHECK(sample.store.read(65, 0, scratch).empty());
}

TEST_CASE("pages that are not there are a mistake of ours", "[store]") {
  const OpenSample sample{GENERATE(Encoding::raw, Encoding::zstd)};
  PageStore::Scratch scratch;
  const auto code_of = [&](std::uint64_t first, std::uint64_t count) {
    const auto failure = failure_of([&] { sample.store.read(first, count, scratch); });
    REQUIRE(failure);
    return failure->code();
  };
  CHECK(code_of(65, 1) == Errc::internal);
  CHECK(code_of(64, 2) == Errc::internal);
  CHECK(code_of(UINT64_MAX, 2) == Errc::internal);
  CHECK(code_of(0, PageStore::kMaxPages + 1) == Errc::internal);
}

TEST_CASE("a damaged frame is found each time it is read", "[store][damage]") {
  OpenSample sample{Encoding::zstd};
  PageStore::Scratch scratch;
  sample.store.read(16, 1, scratch);  // a good one is there before
  sample.bytes[kPageSize] ^= std::byte{1};
  for (int i = 0; i < 2; ++i) {
    const auto failure = failure_of([&] { sample.store.read(0, 1, scratch); });
    REQUIRE(failure);
    CHECK_THAT(failure->what(), Catch::Matchers::Contains("the frame at 4096"));
  }
  CHECK(sample.store.read(16, 1, scratch).size() == kPageSize);
}

}  // namespace icecore::test::page_store_test
