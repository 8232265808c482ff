// SPDX-License-Identifier: Apache-2.0
//
// Writes the seeds of tests/corpus/image: write_corpus FOLDER.  Run it when the format gets a new
// version; images of older versions stay in the corpus for ever.

#include <cstdio>

#include "../image/sample_image.hpp"
#include "image/manifest_codec.hpp"

int main(int argc, char** argv) {
  using namespace icecore;
  namespace sample = icecore::test;
  if (argc != 2) return std::fprintf(stderr, "usage: write_corpus FOLDER\n"), 2;
  const std::filesystem::path folder = argv[1];
  const state::ManifestT manifest = sample::sample_manifest();
  const sample::Memory memory = sample::sample_memory(1);
  sample::write_image(folder / "raw-1.0", manifest, memory, Encoding::raw);
  sample::write_image(folder / "zstd-1.0", manifest, sample::sample_memory(20), Encoding::zstd);
  sample::write_image(folder / "no-pages-1.0", manifest, {}, Encoding::zstd);
  sample::write_file(folder / "manifest-1.0", encode_manifest(manifest));
}
