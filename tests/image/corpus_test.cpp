// SPDX-License-Identifier: Apache-2.0
//
// Images written by earlier versions of icecore: they are read for ever.
#include <catch2/catch.hpp>

#include "icecore/image.hpp"
#include "image/sample_image.hpp"

namespace icecore::test::corpus_test {

std::filesystem::path corpus() {
  return std::filesystem::path{__FILE__}.parent_path().parent_path() / "corpus" / "image";
}

TEST_CASE("images of version 1.0 can be read", "[image]") {
  const auto verified_pages = [](const char* name) {
    return Image::open(corpus() / name).verify();
  };
  CHECK(verified_pages("raw-1.0") == 2);
  CHECK(verified_pages("zstd-1.0") == 21);
  CHECK(verified_pages("no-pages-1.0") == 0);
  CHECK(Image::open(corpus() / "zstd-1.0").info().arguments.at(1) == "--go");
}

// A change of the schema that moves what is there already would show here.
TEST_CASE("version 1.0 is written as it was", "[image]") {
  CHECK(same_bytes(image_bytes(sample_manifest(), sample_memory(1), Encoding::raw),
                   read_file(corpus() / "raw-1.0")));
}

}  // namespace icecore::test::corpus_test
