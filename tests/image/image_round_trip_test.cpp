// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "image/failure.hpp"
#include "image/image_reader.hpp"
#include "image/patch_image.hpp"
#include "image/sample_image.hpp"
#include "memory/page_store.hpp"

namespace icecore::test::image_round_trip_test {

std::vector<std::byte> read_all_pages(const ImageReader& reader) {
  const PageStore store{reader};
  PageStore::Scratch scratch;
  std::vector<std::byte> pages;
  const std::uint64_t stored = reader.page_map().stored_pages;
  for (std::uint64_t page = 0; page < stored; page += PageStore::kMaxPages) {
    const auto some = store.read(page, std::min(PageStore::kMaxPages, stored - page), scratch);
    pages.insert(pages.end(), some.begin(), some.end());
  }
  return pages;
}

/// As FlatBuffers, so that two can be compared.
std::vector<std::uint8_t> packed(const state::ManifestT& manifest) {
  flatbuffers::FlatBufferBuilder builder;
  builder.Finish(state::Manifest::Pack(builder, &manifest));
  return {builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize()};
}

TEST_CASE("an image gives back the manifest and the pages that went in", "[image]") {
  const Encoding encoding = GENERATE(Encoding::raw, Encoding::zstd);
  const std::uint64_t heap_pages = GENERATE(1u, 15u, 16u, 17u, 64u);
  const Memory memory = sample_memory(heap_pages);

  const auto image = image_bytes(sample_manifest(), memory, encoding);
  const ImageReader reader{image};

  CHECK(reader.page_map().encoding == encoding);
  CHECK(reader.page_map().stored_pages == heap_pages + 1);
  CHECK(reader.page_map().runs == memory.runs);
  CHECK(same_bytes(read_all_pages(reader), memory.bytes));
  CHECK(packed(reader.manifest()) == packed(sample_manifest()));
}

TEST_CASE("an image without pages can be read", "[image]") {
  const Encoding encoding = GENERATE(Encoding::raw, Encoding::zstd);
  const auto image = image_bytes(sample_manifest(), {}, encoding);
  const ImageReader reader{image};
  CHECK(reader.page_map().stored_pages == 0);
  CHECK(reader.page_map().runs.empty());
}

TEST_CASE("the same state gives the same bytes", "[image]") {
  const Encoding encoding = GENERATE(Encoding::raw, Encoding::zstd);
  CHECK(same_bytes(sample_image(encoding), sample_image(encoding)));
}

TEST_CASE("the version lies at a fixed place", "[image]") {
  const auto image = sample_image(Encoding::raw);
  std::uint16_t version[2];
  std::memcpy(version, &image[72], sizeof version);
  CHECK(version[0] == 1);
  CHECK(version[1] == 0);
  CHECK(std::memcmp(&image[64], "icecore\n", 8) == 0);
}

TEST_CASE("a process of thousands of threads, mappings and descriptors fits", "[image]") {
  state::ManifestT manifest = sample_manifest();
  state::ProcessT& process = *manifest.process;
  for (int i = 1; i <= 3000; ++i) process.threads.push_back(sample_thread(5000 + i, "worker"));
  for (std::uint64_t i = 0; i < 65000; ++i) {
    const std::uint64_t start = 0x600000000000 + i * 2 * kPageSize;
    process.address_space->mappings.insert(process.address_space->mappings.end() - 3,
                                           anonymous_mapping(start, start + kPageSize));
  }
  for (int i = 10; i < 20000; ++i) {
    auto description = std::make_unique<state::DescriptionT>();
    description->open.Set(state::EventFdT{});
    process.descriptors->descriptors.emplace_back(
        i, static_cast<std::uint32_t>(process.descriptors->descriptions.size()), true);
    process.descriptors->descriptions.push_back(std::move(description));
  }

  const auto image = image_bytes(manifest, sample_memory(), Encoding::raw);
  const ImageReader reader{image};
  CHECK(packed(reader.manifest()) == packed(manifest));
}

TEST_CASE("a manifest that contradicts itself is not written", "[image]") {
  const TemporaryFolder folder;
  state::ManifestT manifest = sample_manifest();
  manifest.process->threads.clear();
  const auto failure = failure_of(
      [&] { write_image(folder.path() / "image", manifest, sample_memory(), Encoding::raw); });
  REQUIRE(failure);
  CHECK(failure->code() == Errc::internal);
  CHECK(std::filesystem::is_empty(folder.path()));
}

}  // namespace icecore::test::image_round_trip_test
