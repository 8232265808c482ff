// SPDX-License-Identifier: Apache-2.0
//
// A store by its files: images are samples, nothing is snapshotted or restored.
#include "icecore/store.hpp"

#include <catch2/catch.hpp>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "icecore/error.hpp"
#include "support/temporary_folder.hpp"

namespace icecore::store_test {

namespace fs = std::filesystem;

void write(const fs::path& path, const std::string& text) { std::ofstream{path} << text; }

std::string sample_image() {
  std::ifstream file{fs::path{ICECORE_SOURCE_DIR} / "tests/corpus/image/raw-1.0"};
  return {std::istreambuf_iterator<char>{file}, {}};
}

struct Fixture {
  test::TemporaryFolder folder;
  Store store = Store::open(folder / "store");
  fs::path script = folder / "script";

  Fixture() { write(script, "print(1)"); }

  Wanted wanted() const {
    return {.started = {.command = {"python3", script},
                        .working_directory = "/",
                        .variables = {"A=1"},
                        .cpu_baseline = "",
                        .dependencies = {depend_on(script)}},
            .worker_type = "here",
            .max_age = {}};
  }

  StoreEntry entry(const std::string& worker_type = "here") const {
    StoreEntry entry;
    entry.started = wanted().started;
    entry.worker_type = worker_type;
    REQUIRE(complete(entry.started.dependencies) == "");
    return entry;
  }

  void add(const std::string& key = "key", const std::string& worker_type = "here") const {
    auto place = store.begin(key);
    REQUIRE(place);
    write(place->path(), sample_image());
    place->commit(entry(worker_type));
  }

  std::size_t files() const {
    std::size_t count = 0;
    for (const auto& file : fs::recursive_directory_iterator{folder / "store"})
      if (file.is_regular_file() && file.path().filename() != "lock") ++count;
    return count;
  }
};

TEST_CASE("an image is found by its key, the latest first") {
  Fixture fixture;
  CHECK(fixture.store.find("key", fixture.wanted()).empty());
  fixture.add();
  fixture.add();
  const auto found = Store::open(fixture.folder / "store").find("key", fixture.wanted());
  REQUIRE(found.size() == 2);
  CHECK(found[0].name > found[1].name);
  CHECK(found[0].key == "key");
  CHECK(found[0].image_bytes == sample_image().size());
  CHECK(found[0].restores == 0);
  CHECK(fixture.store.find("other key", fixture.wanted()).empty());
}

TEST_CASE("an image made of other things does not fit") {
  Fixture fixture;
  fixture.add();
  Wanted wanted = fixture.wanted();
  const std::string what =
      GENERATE("command", "directory", "variable", "baseline", "dependency", "contents", "absent");
  INFO(what);
  if (what == "command") wanted.started.command.emplace_back("--more");
  if (what == "directory") wanted.started.working_directory = "/tmp";
  if (what == "variable") wanted.started.variables = {"A=2"};
  if (what == "baseline") wanted.started.cpu_baseline = "x86-64-v3";
  if (what == "dependency") wanted.started.dependencies.push_back(depend_on("/bin/sh"));
  if (what == "contents") write(fixture.script, "print(2)");
  if (what == "absent") fs::remove(fixture.script);
  CHECK(fixture.store.find("key", wanted).empty());
  CHECK(why_unfit(fixture.store.list()[0], wanted) != "");
}

TEST_CASE("why an image does not fit is said") {
  Fixture fixture;
  fixture.add();
  const StoreEntry entry = fixture.store.list()[0];
  Wanted wanted = fixture.wanted();
  CHECK(why_unfit(entry, wanted) == "");
  wanted.started.variables = {"A=2"};
  CHECK(why_unfit(entry, wanted) == "made with another value of A");
  wanted = fixture.wanted();
  write(fixture.script, "print(2)");
  CHECK(why_unfit(entry, wanted) == fixture.script.string() + " has changed");
}

TEST_CASE("contents count, not when they were written") {
  Fixture fixture;
  fixture.add();
  fs::remove(fixture.script);
  write(fixture.script, "print(1)");
  CHECK(fixture.store.find("key", fixture.wanted()).size() == 1);
}

TEST_CASE("a folder depends on every file in it") {
  Fixture fixture;
  const fs::path inner = fixture.folder / "package";
  fs::create_directories(inner / "deep");
  write(inner / "deep" / "a.py", "1");
  Wanted wanted = fixture.wanted();
  wanted.started.dependencies = {depend_on(inner)};
  StoreEntry entry = fixture.entry();
  entry.started = wanted.started;
  REQUIRE(complete(entry.started.dependencies) == "");
  auto place = fixture.store.begin("key");
  write(place->path(), sample_image());
  place->commit(entry);
  CHECK(fixture.store.find("key", wanted).size() == 1);
  fs::create_directory(inner / "__pycache__");
  write(inner / "__pycache__" / "a.pyc", "x");
  CHECK(fixture.store.find("key", wanted).size() == 1);
  write(inner / "deep" / "b.py", "");
  CHECK(fixture.store.find("key", wanted).empty());
}

TEST_CASE("links that lead nowhere or in circles count by where they point") {
  Fixture fixture;
  const fs::path inner = fixture.folder / "package";
  fs::create_directories(inner);
  fs::create_symlink("b", inner / "a");
  fs::create_symlink("a", inner / "b");
  fs::create_symlink("nowhere", inner / "c");
  fs::create_symlink(".", inner / "d");
  const auto digest = [&] {
    std::vector<Dependency> dependencies{depend_on(inner)};
    REQUIRE(complete(dependencies) == "");
    return dependencies[0].digest;
  };
  const std::string before = digest();
  CHECK(digest() == before);
  fs::remove(inner / "a");
  fs::create_symlink("c", inner / "a");
  CHECK(digest() != before);
}

TEST_CASE("bytes that are not UTF-8 are told from others") {
  Fixture fixture;
  const std::string key = "\xff", other_key = "\xfe";
  Wanted wanted = fixture.wanted();
  wanted.started.command.emplace_back("\x80");
  StoreEntry entry = fixture.entry();
  entry.started.command = wanted.started.command;
  auto place = fixture.store.begin(key);
  write(place->path(), sample_image());
  place->commit(entry);
  CHECK(fixture.store.find(key, wanted).size() == 1);
  CHECK(fixture.store.find(other_key, wanted).empty());
  wanted.started.command.back() = "\x81";
  CHECK(fixture.store.find(key, wanted).empty());
}

TEST_CASE("a dependency that changes between start and snapshot is named") {
  Fixture fixture;
  std::vector<Dependency> dependencies{depend_on(fixture.script)};
  write(fixture.script, "print(3)");
  CHECK(complete(dependencies) == fixture.script);
}

TEST_CASE("images of the same worker type come first") {
  Fixture fixture;
  fixture.add("key", "here");
  fixture.add("key", "elsewhere");
  const auto found = fixture.store.find("key", fixture.wanted());
  REQUIRE(found.size() == 2);
  CHECK(found[0].worker_type == "here");
}

TEST_CASE("one makes an image at a time, and others do not wait") {
  Fixture fixture;
  {
    const auto place = fixture.store.begin("key");
    REQUIRE(place);
    CHECK(!fixture.store.begin("key"));
    CHECK(fixture.store.begin("other"));
  }
  CHECK(fixture.store.begin("key"));
}

TEST_CASE("an image that is not committed leaves nothing") {
  Fixture fixture;
  const std::size_t before = fixture.files();
  {
    const auto place = fixture.store.begin("key");
    write(place->path(), sample_image());
    CHECK(fixture.store.find("key", fixture.wanted()).empty());
  }
  CHECK(fixture.files() == before);
}

TEST_CASE("what a crash leaves is not found, and gc removes it") {
  Fixture fixture;
  fixture.add();
  const std::size_t whole = fixture.files();
  const fs::path image = fixture.store.list()[0].image;
  const fs::path folder = image.parent_path();
  write(folder / "00000009-dead.icecore", "half an image");
  write(folder / "00000009-dead.icecore.ws", "its working set");
  write(folder / ".00000010-dead.icecore.icecore-abcdef", "a temporary name");
  write(folder / "00000011-dead.icecore.entry", "{\"format\":1,\"key\":");
  CHECK(fixture.store.find("key", fixture.wanted()).size() == 1);
  CHECK(fixture.store.list().size() == 1);
  const auto collected = fixture.store.collect({});
  CHECK(collected.removed.empty());
  CHECK(collected.removed_bytes > 0);
  CHECK(fixture.files() == whole);
  CHECK(fixture.store.find("key", fixture.wanted()).size() == 1);
}

TEST_CASE("gc leaves alone what somebody is making") {
  Fixture fixture;
  const auto place = fixture.store.begin("key");
  write(place->path(), sample_image());
  fixture.store.collect({});
  CHECK(fs::exists(place->path()));
}

TEST_CASE("gc keeps so many, and so much") {
  Fixture fixture;
  for (int i = 0; i < 3; ++i) fixture.add("a");
  fixture.add("a", "elsewhere");
  fixture.add("b");
  CHECK(fixture.store.collect({.keep = 1, .max_age = {}, .max_bytes = {}}).removed.size() == 2);
  CHECK(fixture.store.list("a").size() == 2);
  CHECK(fixture.store.list("b").size() == 1);
  const auto collected =
      fixture.store.collect({.keep = {}, .max_age = {}, .max_bytes = sample_image().size()});
  CHECK(collected.removed.size() == 2);
  CHECK(fixture.store.list().size() == 1);
}

TEST_CASE("an image of an age that nobody knows is not younger than anything") {
  Fixture fixture;
  fixture.add();
  const StoreEntry entry = fixture.store.list()[0];
  const fs::path file = entry.image.native() + ".entry";
  std::ifstream in{file};
  std::string text{std::istreambuf_iterator<char>{in}, {}};
  Wanted wanted = fixture.wanted();
  wanted.max_age = std::chrono::hours{1};
  CHECK(fixture.store.find("key", wanted).size() == 1);
  const std::size_t at = text.find("\"made_at_s\":") + 12;
  const std::int64_t offset = GENERATE(-7200, 7200);  // too old; the clock was set back
  text.replace(at, text.find(',', at) - at,
               std::to_string(entry.made_at.time_since_epoch().count() + offset));
  write(file, text);
  CHECK(fixture.store.find("key", wanted).empty());
  CHECK(fixture.store.find("key", fixture.wanted()).size() == 1);
}

TEST_CASE("an image that was set aside is not found, and says why") {
  Fixture fixture;
  fixture.add();
  const StoreEntry entry = fixture.store.list()[0];
  fixture.store.note_failure(entry, "some \"reason\"", false);
  CHECK(fixture.store.find("key", fixture.wanted()).size() == 1);
  fixture.store.note_failure(entry, "page 7", true);
  CHECK(fixture.store.find("key", fixture.wanted()).empty());
  CHECK(fixture.store.list()[0].last_failure == "page 7");
  CHECK(fixture.store.collect({}).removed.size() == 1);
}

TEST_CASE("restores are counted") {
  Fixture fixture;
  fixture.add();
  for (int i = 0; i < 3; ++i) fixture.store.note_restore(fixture.store.list()[0]);
  CHECK(fixture.store.list()[0].restores == 3);
  CHECK(fixture.store.list()[0].used_at.time_since_epoch().count() > 0);
}

TEST_CASE("a refusal is new once, until an image could be made") {
  Fixture fixture;
  CHECK(fixture.store.note_refusal("key", "fd 5"));
  CHECK(!fixture.store.note_refusal("key", "fd 5"));
  CHECK(fixture.store.note_refusal("key", "fd 5: is open"));
  CHECK(fixture.store.refusal("key") == "fd 5: is open");
  fixture.add();
  CHECK(fixture.store.refusal("key") == "");
}

TEST_CASE("a refusal is the same when only process ids and made-up names differ") {
  Fixture fixture;
  const auto is_new = [&](const std::string& reason) {
    return fixture.store.note_refusal("key", reason);
  };
  CHECK(is_new("process 17: has 1 child, 18; write /s/00000001-6e45515a.icecore: no space"));
  CHECK(!is_new("process 7: has 1 child, 108; write /s/00000001-dead7b3e.icecore: no space"));
  CHECK(is_new("process 7: has 1 child, 108; write /s/00000001-dead7b3e.icecore: no room"));
  CHECK(is_new("process 7: has 1 child, 108; write /s/00000001-dead7b3e.icecore: no room left"));
  CHECK(is_new("process 7: has 1 child"));
}

TEST_CASE("a store of another version, or none, is refused") {
  Fixture fixture;
  write(fixture.folder / "store" / "icecore-store", "2\n");
  CHECK_THROWS_AS(Store::open(fixture.folder / "store"), Error);
  CHECK_THROWS_AS(Store::open(fixture.folder.path()), Error);  // not empty, and no store
  CHECK_THROWS_AS(Store::open(fixture.script), Error);
}

TEST_CASE("a store whose file a power failure has left empty is made anew") {
  Fixture fixture;
  fixture.add();
  write(fixture.folder / "store" / "icecore-store", "");
  CHECK(Store::open(fixture.folder / "store").list().size() == 1);
  CHECK(fs::file_size(fixture.folder / "store" / "icecore-store") == 2);
}

TEST_CASE("entries of a newer icecore are left alone") {
  Fixture fixture;
  fixture.add();
  const fs::path folder = fixture.store.list()[0].image.parent_path();
  write(folder / "00000007-new.icecore.entry", "{\"format\":2}");
  write(folder / "00000007-new.icecore", "its image");
  CHECK(fixture.store.list().size() == 1);
  fixture.store.collect({});
  CHECK(fs::exists(folder / "00000007-new.icecore"));
}

TEST_CASE("a store for one image keeps it in that file") {
  Fixture fixture;
  const Store single = Store::single(fixture.folder / "one");
  CHECK(single.find("", fixture.wanted()).empty());
  {
    auto place = single.begin("");
    CHECK(place->path() == fixture.folder / "one");
    write(place->path(), sample_image());
    place->commit(fixture.entry());
  }
  CHECK(single.find("", fixture.wanted()).size() == 1);
  {
    const auto replacing = single.begin("");
    CHECK(single.find("", fixture.wanted()).empty());  // its entry would be that of another image
  }
  CHECK(single.find("", fixture.wanted()).size() == 1);  // nothing was written
  {
    const auto replacing = single.begin("");
    write(fixture.folder / "new", sample_image());
    fs::rename(fixture.folder / "new", replacing->path());
  }
  CHECK(!fs::exists(fixture.folder / "one"));
}

TEST_CASE("a store for one image: what is noted of one does not count for the next") {
  Fixture fixture;
  const Store single = Store::single(fixture.folder / "one");
  for (int i = 0; i < 2; ++i) {
    auto place = single.begin("");
    write(place->path(), sample_image());
    place->commit(fixture.entry());
    const auto found = single.find("", fixture.wanted());
    REQUIRE(found.size() == 1);
    CHECK(found[0].restores == 0);
    single.note_restore(found[0]);
    single.note_failure(found[0], "damaged", true);
    CHECK(single.find("", fixture.wanted()).empty());
  }
}

TEST_CASE("a store for one image leaves alone what is none") {
  Fixture fixture;
  const fs::path file = fixture.folder / "one";
  const Store single = Store::single(file);
  write(file, "precious");
  CHECK_THROWS_AS(single.begin(""), Error);
  CHECK(fs::file_size(file) == 8);
  CHECK(!fs::exists(file.native() + ".lock"));

  write(file, "");  // of mktemp(1)
  CHECK(single.begin(""));
  CHECK(fs::exists(file));
  write(file, sample_image());
  CHECK(single.begin(""));
  CHECK(fs::exists(file));

  fs::remove(file);
  fs::create_directory(file);
  CHECK_THROWS_AS(single.begin(""), Error);
  CHECK(fs::exists(file));
}

}  // namespace icecore::store_test
