// SPDX-License-Identifier: Apache-2.0
//
// What of a process's memory must not be in its image, and what a machine must have for it.
#include <catch2/catch.hpp>
#include <icecore/snapshot.hpp>

#include <cstring>
#include <fstream>
#include <iterator>

#include "support/restored.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::memory_test {

bool holds(const std::filesystem::path& path, const std::string& number) {
  const std::uint64_t word = std::stoull(number);
  char bytes[sizeof word];
  std::memcpy(bytes, &word, sizeof word);
  std::ifstream file{path, std::ios::binary};
  const std::string image{std::istreambuf_iterator<char>{file}, {}};
  return image.find(std::string{bytes, sizeof bytes}) != std::string::npos;
}

TEST_CASE("droppable memory is in no image") {
  TemporaryFolder folder;
  try {
    Target target{"droppable_memory"};
    const std::string secret = target.ask("secret?");  // in ordinary memory
    icecore::snapshot(target.pid(), folder / "image",
                      {.encoding = icecore::Encoding::raw, .fsync = false});
    CHECK(holds(folder / "image", secret));
    CHECK_FALSE(holds(folder / "image", target.ask("word?")));
  } catch (const NotHere& reason) {
    skip(reason.what());
  }
}

}  // namespace test::memory_test
