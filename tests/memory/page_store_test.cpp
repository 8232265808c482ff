// SPDX-License-Identifier: Apache-2.0
#include "memory/page_store.hpp"

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <unistd.h>

#include <fstream>

#include "image/failure.hpp"
#include "image/sample_image.hpp"
#include "support/temporary_folder.hpp"
#include "sys/files.hpp"

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

TEST_CASE("a page that is awaited is copied out of the file and verified", "[store][damage]") {
  const OpenSample sample{GENERATE(Encoding::raw, Encoding::zstd)};
  const ::test::TemporaryFolder folder;
  std::ofstream{folder / "image"};
  const sys::Fd file = sys::open_file(folder / "image", O_RDWR);
  sys::write_all(file, sample.bytes, 0);
  const PageStore store{sample.reader, file};
  PageStore::Scratch scratch;
  const auto expect = [&](std::uint64_t page) {
    const auto expected = std::span{sample.memory.bytes}.subspan(page * kPageSize, kPageSize);
    CHECK(same_bytes(store.read_awaited(page, scratch), expected));
  };
  for (std::uint64_t page = 0; page < 65; ++page) expect(page);

  std::vector<std::byte> byte(1);
  const bool can_tell = sys::try_read_cached(file, byte, kPageSize);
  byte[0] = sample.bytes[kPageSize] ^ std::byte{1};
  sys::write_all(file, byte, kPageSize);
  if (can_tell && store.encoding() == Encoding::raw) {
    const auto failure = failure_of([&] { store.read_awaited(0, scratch); });
    REQUIRE(failure);
    CHECK(failure->code() == Errc::corrupt_image);
  }
  CHECK(::ftruncate(file.get(), 100) == 0);
  CHECK_FALSE(sys::try_read_cached(file, byte, kPageSize));
  expect(0);  // what is mapped is still whole
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
