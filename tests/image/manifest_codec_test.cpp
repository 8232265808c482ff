// SPDX-License-Identifier: Apache-2.0
#include "image/manifest_codec.hpp"

#include <catch2/catch.hpp>

#include "image/failure.hpp"
#include "image/sample_image.hpp"

namespace icecore::test::manifest_codec_test {

TEST_CASE("a manifest may lie at any address", "[image]") {
  const std::vector<std::byte> packed = encode_manifest(sample_manifest());
  std::vector<std::byte> shifted(packed.size() + 8);
  for (std::size_t shift = 0; shift < 8; ++shift) {
    std::ranges::copy(packed, shifted.begin() + static_cast<std::ptrdiff_t>(shift));
    const auto manifest = decode_manifest(std::span{shifted}.subspan(shift, packed.size()));
    CHECK(manifest->process->threads.at(1)->name == "worker");
  }
}

TEST_CASE("a truncated manifest is refused", "[image][damage]") {
  const std::vector<std::byte> packed = encode_manifest(sample_manifest());
  for (std::size_t size_bytes = 0; size_bytes < packed.size() / 2; ++size_bytes) {
    const auto failure = failure_of([&] { decode_manifest(std::span{packed}.first(size_bytes)); });
    if (!failure || failure->code() != Errc::corrupt_image) FAIL("not refused: " << size_bytes);
  }
}

// The verifier of FlatBuffers does not look at the alignment of elements.
TEST_CASE("a manifest with a vector that is not aligned is refused", "[image][damage]") {
  state::ManifestT manifest = sample_manifest();
  manifest.process->threads.at(0)->affinity = {1, 0};
  std::vector<std::byte> packed = encode_manifest(manifest);
  const auto* const thread = state::GetManifest(packed.data())->process()->threads()->Get(0);
  auto* const reference =
      const_cast<std::uint8_t*>(reinterpret_cast<const flatbuffers::Table*>(thread)->GetAddressOf(
          state::Thread::VT_AFFINITY));
  // One word later its length is the lower half of the first element, which is 1.
  const auto offset = flatbuffers::ReadScalar<flatbuffers::uoffset_t>(reference);
  flatbuffers::WriteScalar(reference, offset + 4);
  REQUIRE(thread->affinity()->size() == 1);

  const auto failure = failure_of([&] { decode_manifest(packed); });
  REQUIRE(failure);
  CHECK(failure->code() == Errc::corrupt_image);
  CHECK_THAT(failure->what(), Catch::Matchers::Contains("not aligned"));
}

// A buffer may refer to one string many times; then it is small, and what it unpacks to is not.
TEST_CASE("a manifest that unpacks to far more than its size is refused", "[image][damage]") {
  flatbuffers::FlatBufferBuilder builder;
  const auto text = builder.CreateString(std::string(1 << 20, 'x'));
  const std::vector<flatbuffers::Offset<flatbuffers::String>> names(100000, text);
  const auto space = [&] {
    const auto vector = builder.CreateVector(names);
    state::AddressSpaceBuilder table{builder};
    table.add_names(vector);
    return table.Finish();
  }();
  state::ProcessBuilder process{builder};
  process.add_address_space(space);
  const auto finished = process.Finish();
  builder.Finish(state::CreateManifest(builder, 0, finished));

  const auto failure = failure_of([&] {
    decode_manifest(std::as_bytes(std::span{builder.GetBufferPointer(), builder.GetSize()}));
  });
  REQUIRE(failure);
  CHECK(failure->code() == Errc::corrupt_image);
  CHECK_THAT(failure->what(), Catch::Matchers::Contains("would unpack to"));
}

TEST_CASE("pipe contents too large for one manifest are refused by name", "[image]") {
  state::ManifestT manifest = sample_manifest();
  for (int i = 0; i < 520; ++i) {
    auto pipe = std::make_unique<state::PipeObjectT>();
    pipe->contents.resize(1 << 20);
    manifest.process->descriptors->pipes.push_back(std::move(pipe));
  }
  const auto failure = failure_of([&] { encode_manifest(manifest); });
  REQUIRE(failure);
  CHECK(failure->code() == Errc::unsupported);
}

}  // namespace icecore::test::manifest_codec_test
