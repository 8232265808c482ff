// SPDX-License-Identifier: Apache-2.0
//
// What becomes of files without a name, beyond what their target can see.
#include <catch2/catch.hpp>
#include <icecore/error.hpp>
#include <icecore/snapshot.hpp>

#include <fstream>
#include <set>

#include "support/restored.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::kept_files_test {

namespace fs = std::filesystem;

std::string first_line(const fs::path& path) {
  std::ifstream file{path};
  std::string line;
  std::getline(file, line);
  return line;
}

void snapshot_and_kill(Target& target, const fs::path& image) {
  icecore::snapshot(target.pid(), image, {.kill = true, .fsync = false});
  target.process().await_end();
}

TEST_CASE("a restored file without a name can be given one", "[kept]") {
  TemporaryFolder folder;
  Target target{"deleted_files", {folder.path()}};
  snapshot_and_kill(target, folder / "image");
  Restored restored{folder / "image"};
  CHECK(restored.ask("link published") == "linked");
  CHECK(first_line(folder / "published") == "never had a name");
}

TEST_CASE("nothing is left of deleted files", "[kept]") {
  TemporaryFolder folder;
  fs::create_directory(folder / "files");
  Target target{"deleted_files", {folder / "files"}};
  const auto names = [&] {
    std::set<std::string> found;
    for (const auto& entry : fs::directory_iterator{folder / "files"}) found.insert(entry.path());
    return found;
  };
  const std::set<std::string> before = names();
  snapshot_and_kill(target, folder / "image");
  {
    Restored restored{folder / "image"};
    CHECK(restored.ask("check?") == "ok");
    CHECK(names() == before);
  }
  CHECK(names() == before);
}

TEST_CASE("files in shared memory that have been deleted come back there", "[kept]") {
  const fs::path shared = "/dev/shm/icecore-test-" + std::to_string(::getpid());
  TemporaryFolder folder;
  fs::create_directory(shared);
  {
    Target target{"deleted_files", {shared}};
    snapshot_and_kill(target, folder / "image");
    Restored restored{folder / "image"};
    CHECK(restored.ask("check?") == "ok");
  }
  fs::remove_all(shared);
}

TEST_CASE("a damaged page of a deleted file is an error before anything runs", "[kept]") {
  TemporaryFolder folder;
  Target target{"deleted_files", {folder.path()}};
  snapshot_and_kill(target, folder / "image");
  std::fstream image{folder / "image", std::ios::in | std::ios::out | std::ios::binary};
  std::string bytes(fs::file_size(folder / "image"), '\0');
  image.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  // The page of the file comes after all of memory, where the same words are as well.
  const std::size_t last = bytes.rfind("what nobody finds");
  REQUIRE(last != std::string::npos);
  image.seekp(static_cast<std::streamoff>(last));
  image.put('W');
  image.close();
  try {
    Restored restored{folder / "image", {.loading = icecore::Loading::eager}};
    FAIL_CHECK("it was restored");
  } catch (const icecore::Error& error) {
    CHECK(error.code() == icecore::Errc::corrupt_image);
    CHECK_THAT(error.what(), Catch::Contains("digest") && Catch::Contains("deleted"));
  }
}

}  // namespace test::kept_files_test
