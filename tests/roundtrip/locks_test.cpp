// SPDX-License-Identifier: Apache-2.0
//
// Locks that somebody else took meanwhile.
#include <catch2/catch.hpp>
#include <icecore/error.hpp>
#include <icecore/snapshot.hpp>
#include <sys/file.h>

#include "support/restored.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::locks_test {

Descriptor open_file(const std::filesystem::path& path) {
  return Descriptor{must(::open(path.c_str(), O_RDWR | O_CLOEXEC), "open")};
}

void expect_named(const std::filesystem::path& image, const std::string& file) {
  try {
    Restored restored{image};
    FAIL_CHECK("it was restored");
  } catch (const icecore::Error& error) {
    CHECK(error.code() == icecore::Errc::incompatible);
    CHECK_THAT(error.what(), Catch::Contains("lock") && Catch::Contains(file));
  }
}

TEST_CASE("a lock that somebody else has is an error before anything runs", "[locks]") {
  TemporaryFolder folder;
  Target target{"locks", {folder.path()}};
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  {
    const Descriptor file = open_file(folder / "whole");
    must(::flock(file.get(), LOCK_SH), "flock");
    expect_named(folder / "image", "whole");
  }
  for (const off_t at : {15, 302}) {  // the process's own, and one of a description
    const Descriptor file = open_file(folder / "database");
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_start = at;
    lock.l_len = 1;
    must(::fcntl(file.get(), F_OFD_SETLK, &lock), "F_OFD_SETLK");
    expect_named(folder / "image", "database");
  }
  Restored restored{folder / "image"};
  CHECK(restored.ask("check?") == "ok");
}

}  // namespace test::locks_test
