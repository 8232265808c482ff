// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "image/failure.hpp"
#include "image/image_reader.hpp"
#include "image/patch_image.hpp"
#include "image/sample_image.hpp"
#include "memory/page_store.hpp"

namespace icecore::test::damaged_image_test {

std::optional<Error> open_failure(std::span<const std::byte> image) {
  return failure_of([&] { const ImageReader reader{image}; });
}

void check_corrupt(std::span<const std::byte> image, const std::string& why) {
  const auto failure = open_failure(image);
  REQUIRE(failure);
  CHECK(failure->code() == Errc::corrupt_image);
  CHECK_THAT(failure->what(), Catch::Matchers::Contains(why));
}

std::byte flipped(std::byte byte, std::size_t bit) { return byte ^ std::byte(1u << bit % 8); }

TEST_CASE("what is no image is called so", "[image][damage]") {
  const std::string text(10000, 'x');
  check_corrupt({}, "not an icecore image");
  check_corrupt(std::as_bytes(std::span{text}).first(63), "not an icecore image");
  check_corrupt(std::as_bytes(std::span{text}).first(70), "not an icecore image");
  check_corrupt(std::as_bytes(std::span{text}), "not an icecore image");
}

TEST_CASE("a truncated image is refused", "[image][damage]") {
  const auto image = sample_image(GENERATE(Encoding::raw, Encoding::zstd));
  for (std::size_t sixteenth = 0; sixteenth < 16; ++sixteenth) {
    const auto failure = open_failure(std::span{image}.first(image.size() * sixteenth / 16));
    REQUIRE(failure);
    CHECK(failure->code() == Errc::corrupt_image);
  }
  CHECK(open_failure(std::span{image}.first(image.size() - 1)));
  CHECK(!open_failure(image));
}

TEST_CASE("bytes behind the end are refused", "[image][damage]") {
  auto image = sample_image(Encoding::raw);
  image.emplace_back();
  CHECK(open_failure(image));
}

TEST_CASE("every flipped byte outside of the pages is found when the image is opened",
          "[image][damage]") {
  auto image = sample_image(GENERATE(Encoding::raw, Encoding::zstd));
  const format::Header header = first_page(image).header;
  for (std::size_t i = 0; i < image.size(); ++i) {
    if (i >= header.data_offset && i < header.data_offset + header.data_size) continue;
    const std::byte before = std::exchange(image[i], flipped(image[i], i));
    const auto failure = open_failure(image);
    image[i] = before;
    if (!failure) FAIL("not found: byte " << i);
    if (failure->code() != Errc::corrupt_image && failure->code() != Errc::incompatible)
      FAIL("byte " << i << ": " << failure->what());
  }
}

TEST_CASE("every flipped byte of a page is found when the page is read", "[image][damage]") {
  auto image = sample_image(GENERATE(Encoding::raw, Encoding::zstd));
  const ImageReader reader{image};
  const PageStore store{reader};
  const auto read_all = [&] {
    PageStore::Scratch scratch;
    store.read(0, reader.page_map().stored_pages, scratch);
  };
  read_all();
  const format::Header header = first_page(image).header;
  for (std::size_t i = 0; i < header.data_size; ++i) {
    std::byte& byte = image[header.data_offset + i];
    const std::byte before = std::exchange(byte, flipped(byte, i));
    const auto failure = failure_of(read_all);
    byte = before;
    if (!failure || failure->code() != Errc::corrupt_image) FAIL("not found: byte " << i);
  }
}

TEST_CASE("a newer major version is refused as such, even if all else is unknown",
          "[image][damage]") {
  auto image = sample_image(Encoding::raw);
  image[72] = std::byte{2};  // digests and layout are those of version 1, but nobody may look
  const auto failure = open_failure(image);
  REQUIRE(failure);
  CHECK(failure->code() == Errc::incompatible);
  CHECK_THAT(failure->what(), Catch::Matchers::Contains("format version 2.0"));
}

TEST_CASE("a newer minor version is read", "[image][damage]") {
  auto image = sample_image(Encoding::raw);
  patch_header(image, [](format::Header& header) {
    header.minor_version = 7;
    header.unused = 1;
  });
  CHECK(ImageReader{image}.minor_version() == 7);
}

// ---- headers whose digests are right ----------------------------------------------------------

TEST_CASE("a hostile header is refused", "[image][damage]") {
  using Header = format::Header;
  struct Case {
    std::string why;
    void (*change)(Header&);
  };
  const auto test = GENERATE(values<Case>({
      {"unknown encoding", [](Header& header) { header.encoding = 2; }},
      {"reserved bits", [](Header& header) { header.reserved = 1; }},
      {"bytes", [](Header& header) { header.file_size += 1; }},
      {"page data at", [](Header& header) { header.data_offset = 8192; }},
      {"page data", [](Header& header) { header.data_size = UINT64_MAX; }},
      {"page data", [](Header& header) { header.data_size = UINT64_MAX - 4095; }},
      {"metadata at", [](Header& header) { header.data_size -= 8; }},
      {"metadata at", [](Header& header) { header.metadata_offset = UINT64_MAX; }},
      {"metadata", [](Header& header) { header.metadata_size -= 1; }},
      {"metadata", [](Header& header) { header.metadata_size = UINT64_MAX; }},
      {"notes at", [](Header& header) { header.notes_offset = 0; }},
      {"notes at", [](Header& header) { header.notes_offset += 1; }},
      {"notes at", [](Header& header) { header.notes_offset = UINT64_MAX - 3; }},
      {"notes at", [](Header& header) { header.notes_size = UINT64_MAX; }},
      {"no page runs", [](Header& header) { header.notes_size = 0; }},
  }));
  auto image = sample_image(Encoding::raw);
  patch_header(image, test.change);
  check_corrupt(image, test.why);
}

TEST_CASE("padding that is not zero is refused", "[image][damage]") {
  // Frames of any length: some sample ends off a multiple of 8.
  for (std::uint64_t pages = 1; pages < 64; ++pages) {
    auto image = image_bytes(sample_manifest(), sample_memory(pages), Encoding::zstd);
    const format::Header header = first_page(image).header;
    if (header.metadata_offset == header.data_offset + header.data_size) continue;
    image[header.metadata_offset - 1] = std::byte{1};
    check_corrupt(image, "padding");
    return;
  }
  FAIL("no sample has padding");
}

// ---- tables whose digests are right -----------------------------------------------------------

TEST_CASE("hostile page runs are refused", "[image][damage]") {
  struct Case {
    std::string why;
    void (*change)(PageRun&);
  };
  const auto test = GENERATE(values<Case>({
      {"a run of", [](PageRun& run) { run.address += 1; }},
      {"a run of", [](PageRun& run) { run.pages = 0; }},
      {"a run of", [](PageRun& run) { run.pages = UINT64_MAX; }},
      {"a run of", [](PageRun& run) { run.pages = UINT64_MAX / kPageSize + 2; }},
      {"a run of", [](PageRun& run) { run.address = UINT64_MAX - 4095; }},
      {"out of order", [](PageRun& run) { run.address = kStack + 3 * kPageSize; }},
      {"out of order", [](PageRun& run) { run.address = kStack; }},
      {"stored pages", [](PageRun& run) { run.pages += 1; }},
      {"not mapped", [](PageRun& run) { run.address = kHeap - kPageSize; }},
      {"not mapped", [](PageRun& run) { run.address = kHeap + (kHeapPages - 2) * kPageSize; }},
  }));
  auto image = sample_image(Encoding::raw);
  patch_entry<PageRun>(image, format::kPageRunsNote, 0, test.change);
  check_corrupt(image, test.why);
}

TEST_CASE("hostile frames are refused", "[image][damage]") {
  struct Case {
    std::string why;
    void (*change)(Frame&);
  };
  const auto test = GENERATE(values<Case>({
      {"a frame at", [](Frame& frame) { frame.offset = 0; }},
      {"a frame at", [](Frame& frame) { frame.offset = UINT64_MAX; }},
      {"reserved bits", [](Frame& frame) { frame.raw |= 2; }},
      {"a frame of", [](Frame& frame) { frame.raw = 1; }},
      {"a frame of", [](Frame& frame) { frame.size_bytes = 0; }},
      {"a frame of", [](Frame& frame) { frame.size_bytes = UINT32_MAX; }},
      {"instead of", [](Frame& frame) { frame.size_bytes += 1; }},
  }));
  auto image = image_bytes(sample_manifest(), sample_memory(64), Encoding::zstd);
  patch_entry<Frame>(image, format::kFramesNote, 0, test.change);
  check_corrupt(image, test.why);
}

TEST_CASE("frames that do not fill the page data are refused", "[image][damage]") {
  auto image = image_bytes(sample_manifest(), sample_memory(64), Encoding::zstd);
  const std::size_t frames = find_note(image, format::kFramesNote).size() / sizeof(Frame);
  REQUIRE(frames == 5);
  SECTION("too short") {
    patch_entry<Frame>(image, format::kFramesNote, 4, [](Frame& frame) { frame.size_bytes -= 1; });
    check_corrupt(image, "the frames end");
  }
  SECTION("too long") {
    patch_entry<Frame>(image, format::kFramesNote, 4, [](Frame& frame) { frame.size_bytes += 1; });
    check_corrupt(image, "beyond the page data");
  }
}

TEST_CASE("a frame with the right digest that does not decode is refused", "[image][damage]") {
  auto image = image_bytes(sample_manifest(), sample_memory(64), Encoding::zstd);
  image[format::kDataOffset] = std::byte{0};  // zstd's magic number
  fix_frame_digests(image);
  fix_digests(image);
  const ImageReader reader{image};
  PageStore::Scratch scratch;
  const auto failure = failure_of([&] { PageStore{reader}.read(0, 1, scratch); });
  REQUIRE(failure);
  CHECK(failure->code() == Errc::corrupt_image);
}

TEST_CASE("notes that are missing, double or foreign are refused", "[image][damage]") {
  auto image = sample_image(Encoding::raw);
  const format::Header header = first_page(image).header;
  // The type of the page runs note: the third number of its header, 20 bytes before its descriptor.
  const auto runs = find_note(image, format::kPageRunsNote);
  std::byte* const type = runs.data() - 12;
  const auto set_type = [&](std::uint32_t value) {
    std::memcpy(type, &value, sizeof value);
    fix_digests(image);
  };
  SECTION("missing; a note of unknown type alone does no harm") {
    set_type(0x49430099);
    check_corrupt(image, "it has no page runs");
  }
  SECTION("double") {
    set_type(format::kPageDigestsNote);
    check_corrupt(image, "two notes");
  }
  SECTION("foreign") {
    image[header.notes_offset + sizeof(Elf64_Nhdr)] = std::byte{'I'};
    fix_digests(image);
    check_corrupt(image, "somebody else");
  }
  SECTION("longer than what is left") {
    const std::uint32_t huge = 0xfffffff0;
    std::memcpy(type - 4, &huge, sizeof huge);
    fix_digests(image);
    check_corrupt(image, "a note of 4294967280 bytes");
  }
  SECTION("without an owner") {
    const std::uint32_t none = 0;
    std::memcpy(&image[header.notes_offset], &none, sizeof none);
    fix_digests(image);
    check_corrupt(image, "without an owner");
  }
}

TEST_CASE("a manifest that is not FlatBuffers is refused", "[image][damage]") {
  auto image = sample_image(Encoding::raw);
  const auto manifest = find_note(image, format::kManifestNote);
  const std::ptrdiff_t from = GENERATE(0, 4);
  std::fill(manifest.begin() + from, manifest.end(), std::byte{0xff});
  fix_digests(image);
  check_corrupt(image, "not well-formed");
}

}  // namespace icecore::test::damaged_image_test
