// SPDX-License-Identifier: Apache-2.0
#include "memory/page_encoder.hpp"

#include <catch2/catch.hpp>
#include <signal.h>

#include <array>
#include <map>
#include <random>
#include <thread>

#include "image/failure.hpp"
#include "image/image_reader.hpp"
#include "image/sample_image.hpp"
#include "memory/page_store.hpp"

namespace icecore::test::page_encoder_test {

constexpr std::array<std::byte, kPageSize> kZeroPage{};
constexpr std::uint64_t kBatchPages = PageEncoder::kBatchBytes / kPageSize;

/// `pages` as an image keeps them: without those that are zero, neighbours in one run.
Memory without_zero_pages(const Memory& memory) {
  Memory kept;
  std::span<const std::byte> left = memory.bytes;
  for (const PageRun& run : memory.runs)
    for (std::uint64_t address = run.address; address < run.end(); address += kPageSize) {
      const auto page = left.first(kPageSize);
      left = left.subspan(kPageSize);
      if (same_bytes(page, kZeroPage)) continue;
      kept.bytes.insert(kept.bytes.end(), page.begin(), page.end());
      if (!kept.runs.empty() && kept.runs.back().end() == address)
        ++kept.runs.back().pages;
      else
        kept.runs.push_back({.address = address, .pages = 1});
    }
  return kept;
}

struct Encoded {
  std::vector<std::byte> image;
  std::uint64_t zero_pages;
};

Encoded encode_alone(const Memory& memory, Encoding encoding, std::uint64_t batch_pages,
                     std::uint64_t expected_bytes = 0) {
  const TemporaryFolder folder;
  state::ManifestT manifest = sample_manifest();
  auto& mappings = manifest.process->address_space->mappings;
  mappings[2] = anonymous_mapping(kHeap, kHeap + (std::uint64_t{1} << 30), 0);

  ImageWriter writer{folder.path() / "image"};
  PageEncoder encoder{writer, encoding, 1};
  encoder.expect(expected_bytes);
  encode(encoder, memory, batch_pages);
  const PageMap map = encoder.finish();
  writer.finish(manifest, map);
  writer.commit(false);
  return {.image = read_file(folder.path() / "image"), .zero_pages = encoder.zero_pages()};
}

std::vector<std::byte> decode(const ImageReader& reader, std::uint64_t pages_at_once) {
  const PageStore store{reader};
  PageStore::Scratch scratch;
  std::vector<std::byte> bytes;
  const std::uint64_t stored = reader.page_map().stored_pages;
  for (std::uint64_t page = 0; page < stored; page += pages_at_once) {
    const auto some = store.read(page, std::min(pages_at_once, stored - page), scratch);
    bytes.insert(bytes.end(), some.begin(), some.end());
  }
  return bytes;
}

void check_comes_back(const Memory& memory, std::uint64_t batch_pages = kBatchPages) {
  const Memory expected = without_zero_pages(memory);
  const std::uint64_t zero_pages = (memory.bytes.size() - expected.bytes.size()) / kPageSize;
  for (const Encoding encoding : {Encoding::raw, Encoding::zstd}) {
    const Encoded encoded = encode_alone(memory, encoding, batch_pages);
    const ImageReader reader{encoded.image};
    CHECK(encoded.zero_pages == zero_pages);
    CHECK(reader.page_map().runs == expected.runs);
    for (const std::uint64_t pages_at_once : {1u, 7u, 64u})
      CHECK(same_bytes(decode(reader, pages_at_once), expected.bytes));
  }
}

TEST_CASE("no pages at all", "[encoder]") { check_comes_back({}); }

TEST_CASE("pages of many batches come back", "[encoder]") {
  Memory memory;
  memory.add(kHeap, random_pages(5 * kBatchPages + 3, 2));
  check_comes_back(memory);
}

TEST_CASE("an image is the same whether or not its pages were expected", "[encoder]") {
  Memory memory;
  memory.add(kHeap, random_pages(12 * kBatchPages + 5, 8));
  const Encoding encoding = GENERATE(Encoding::raw, Encoding::zstd);
  const std::uint64_t expected = GENERATE(1u, 12u << 20, 1u << 30);
  CHECK(encode_alone(memory, encoding, kBatchPages, expected).image ==
        encode_alone(memory, encoding, kBatchPages).image);
}

TEST_CASE("batches of any size come back", "[encoder]") {
  Memory memory;
  memory.add(kHeap, random_pages(700, 3));
  check_comes_back(memory, GENERATE(1u, 3u, 17u, 255u));
}

TEST_CASE("zero pages are dropped wherever they are", "[encoder]") {
  Memory memory;
  auto pages = random_pages(1500, 4);
  std::mt19937 random{7};
  const auto zero = [&](std::size_t page) {
    std::fill_n(pages.begin() + static_cast<std::ptrdiff_t>(page * kPageSize), kPageSize,
                std::byte{0});
  };
  SECTION("all") {
    for (std::size_t page = 0; page < 1500; ++page) zero(page);
  }
  SECTION("every second") {
    for (std::size_t page = 0; page < 1500; page += 2) zero(page);
  }
  SECTION("random ones") {
    for (int i = 0; i < 500; ++i) zero(random() % 1500);
  }
  SECTION("a page with one last byte is not zero") {
    zero(0);
    zero(1);
    pages[2 * kPageSize - 1] = std::byte{1};
  }
  memory.add(kHeap, pages);
  check_comes_back(memory);
}

TEST_CASE("many runs come back, those that touch as one", "[encoder]") {
  Memory memory;
  for (std::uint64_t i = 0; i < 900; ++i) {
    const std::uint64_t gap = i % 3 == 0 ? 1 : 0;
    const std::uint64_t start = memory.runs.empty() ? kHeap : memory.runs.back().end();
    memory.add(start + gap * kPageSize, random_pages(1 + i % 4, static_cast<unsigned>(i)));
  }
  check_comes_back(memory);
}

TEST_CASE("frames that do not shrink are stored as they are", "[encoder]") {
  Memory memory;
  memory.add(kHeap, random_pages(16, 5));
  memory.add(kHeap + 32 * kPageSize, text_pages(16));
  const Encoded encoded = encode_alone(memory, Encoding::zstd, kBatchPages);
  const ImageReader reader{encoded.image};
  const PageMap& map = reader.page_map();
  REQUIRE(map.frames.size() == 2);
  CHECK(map.frames[0].raw == 1);
  CHECK(map.frames[0].size_bytes == 65536);
  CHECK(map.frames[1].raw == 0);
  CHECK(map.frames[1].size_bytes < 6553);
  check_comes_back(memory);
}

TEST_CASE("an abandoned encoder ends", "[encoder]") {
  const TemporaryFolder folder;
  const Encoding encoding = GENERATE(Encoding::raw, Encoding::zstd);
  const auto pages = random_pages(kBatchPages, 6);
  ImageWriter writer{folder.path() / "image"};
  PageEncoder encoder{writer, encoding, 1};
  for (std::uint64_t i = 0; i < 6; ++i) {
    std::ranges::copy(pages, encoder.buffer().begin());
    const PageRun run{.address = kHeap + i * PageEncoder::kBatchBytes, .pages = kBatchPages};
    encoder.submit({&run, 1});
  }
}

TEST_CASE("levels that zstd does not have are refused", "[encoder]") {
  const TemporaryFolder folder;
  ImageWriter writer{folder.path() / "image"};
  const auto failure = failure_of([&] {
    PageEncoder encoder{writer, Encoding::zstd, GENERATE(-8, 20)};
  });
  REQUIRE(failure);
  CHECK(failure->code() == Errc::invalid_argument);
}

/// The blocked signals of every thread of this process, as bits, by the thread's id.
std::map<std::string, std::uint64_t> masks_of_threads() {
  std::map<std::string, std::uint64_t> masks;
  for (const auto& task : std::filesystem::directory_iterator{"/proc/self/task"}) {
    std::ifstream status{task.path() / "status"};
    for (std::string line; std::getline(status, line);)
      if (line.starts_with("SigBlk:"))
        masks[task.path().filename()] = std::stoull(line.substr(7), nullptr, 16);
  }
  return masks;
}

TEST_CASE("no signal ever lands on a thread of the encoder", "[encoder]") {
  const TemporaryFolder folder;
  sigset_t before{}, after{};
  ::pthread_sigmask(SIG_SETMASK, nullptr, &before);
  std::thread{[] {}}.join();  // with the first thread ThreadSanitizer starts one of its own
  const auto others = masks_of_threads();
  ImageWriter writer{folder.path() / "image"};
  PageEncoder encoder{writer, Encoding::zstd, 1};
  const auto submit = [&](std::uint64_t address, std::uint64_t pages) {
    std::ranges::copy(random_pages(pages, 8), encoder.buffer().begin());
    const PageRun run{.address = address, .pages = pages};
    encoder.submit({&run, 1});
  };
  submit(kHeap, 2);
  CHECK(masks_of_threads().size() == others.size());  // for so little they are not worth it
  submit(kHeap + 2 * kPageSize, kBatchPages);
  ::pthread_sigmask(SIG_SETMASK, nullptr, &after);

  CHECK(std::memcmp(&before, &after, sizeof before) == 0);
  auto masks = masks_of_threads();
  for (const auto& [thread, mask] : others) masks.erase(thread);
  CHECK(masks.size() == 3);
  // All but SIGKILL, SIGSTOP and the two that the C library keeps for itself, which a thread that
  // only begins may have blocked as well.
  constexpr std::uint64_t kAll = 0xfffffffe7ffbfeff;
  for (const auto& [thread, mask] : masks) CHECK((mask & kAll) == kAll);
}

}  // namespace icecore::test::page_encoder_test
