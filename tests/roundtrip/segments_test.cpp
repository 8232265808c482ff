// SPDX-License-Identifier: Apache-2.0
//
// SysV shared memory beside that of others.
#include <catch2/catch.hpp>
#include <icecore/snapshot.hpp>
#include <sys/ipc.h>
#include <sys/shm.h>

#include "support/restored.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::segments_test {

struct Segment {
  int id;
  explicit Segment(int key)
      : id(must(::shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600), "shmget")) {}
  ~Segment() { ::shmctl(id, IPC_RMID, nullptr); }
};

TEST_CASE("a removed segment comes back while another has the key that it had") {
  TemporaryFolder folder;
  Target target{"segments"};
  const int key = std::stoi(target.ask("removed_key?"));
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  const Segment other{key};
  Restored restored{folder / "image"};
  CHECK(restored.ask("check?") == "ok");
  CHECK(::shmget(key, 0, 0) == other.id);
  ::shmid_ds status{};
  must(::shmctl(other.id, IPC_STAT, &status), "shmctl");
  CHECK(status.shm_nattch == 0);
}

TEST_CASE("what others write into a segment that is left behind does not come back") {
  TemporaryFolder folder;
  Target target{"segments"};
  const int key = std::stoi(target.ask("key?"));
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  const int left = must(::shmget(key, 0, 0), "shmget");
  auto* const bytes = static_cast<char*>(::shmat(left, nullptr, 0));
  REQUIRE(bytes != reinterpret_cast<char*>(-1));
  bytes[4096] = 1;  // of a page that the process never touched
  must(::shmdt(bytes), "shmdt");
  Restored restored{folder / "image"};
  CHECK(restored.ask("check?") == "ok");
}

}  // namespace test::segments_test
