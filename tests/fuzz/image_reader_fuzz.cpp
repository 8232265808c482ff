// SPDX-License-Identifier: Apache-2.0
//
// Feeds bytes to everything that reads an image.  Digests would stop nearly every mutation at the
// door, so each input is tried as it is, again with its digests made right, and once more as a bare
// manifest.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../image/patch_image.hpp"
#include "icecore/error.hpp"
#include "image/image_reader.hpp"
#include "image/manifest_codec.hpp"
#include "image/state_generated.h"
#include "image/validate_manifest.hpp"
#include "memory/page_store.hpp"

namespace {

using icecore::Error;
using icecore::ImageReader;
using icecore::PageStore;

void read_pages(const ImageReader& reader) {
  constexpr std::uint64_t kMostPages = 1024;
  const PageStore store{reader};
  PageStore::Scratch scratch;
  const std::uint64_t pages = std::min(reader.page_map().stored_pages, kMostPages);
  for (std::uint64_t page = 0; page < pages; page += PageStore::kMaxPages) {
    try {
      store.read(page, std::min(PageStore::kMaxPages, pages - page), scratch);
    } catch (const Error&) {
      // The next pages may be whole.
    }
  }
}

void read_image(std::span<const std::byte> image) {
  try {
    read_pages(ImageReader{image});
  } catch (const Error&) {
  }
}

void fix_all_digests(std::span<std::byte> image) {
  try {
    if (image.size() >= sizeof(icecore::format::FirstPage)) icecore::test::fix_frame_digests(image);
  } catch (const Error&) {
    // Its notes cannot be read, so no frame can be found.
  }
  icecore::test::fix_digests(image);
}

void read_manifest(std::span<const std::byte> bytes) {
  try {
    icecore::validate_manifest(*icecore::decode_manifest(bytes), {});
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto input = std::as_bytes(std::span{data, size});
  std::vector<std::byte> image{input.begin(), input.end()};
  read_image(image);
  fix_all_digests(image);
  read_image(image);
  read_manifest(input);
  return 0;
}

#ifdef ICECORE_REPLAY_MAIN
// Without a fuzzer: runs over the files named on the command line.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::ifstream file{argv[i], std::ios::binary};
    if (!file) return std::fprintf(stderr, "cannot read %s\n", argv[i]), 1;
    const std::string bytes{std::istreambuf_iterator<char>{file}, {}};
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  }
  return argc > 1 ? 0 : 2;
}
#endif
