// SPDX-License-Identifier: Apache-2.0
//
// CPU times cannot be set: those of a restored process begin at zero, by every interface.
#include <catch2/catch.hpp>
#include <icecore/snapshot.hpp>

#include "support/restored.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::cpu_times_test {

TEST_CASE("CPU times go on after a snapshot, and begin at zero after a restore") {
  TemporaryFolder folder;
  Target target{"cpu_clocks"};
  const long before = std::stol(target.ask("cpu?"));
  CHECK(before >= 300);
  icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
  CHECK(std::stol(target.ask("cpu?")) >= before);
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  Restored restored{folder / "image"};
  CHECK(std::stol(restored.ask("cpu?")) < before);
  CHECK(restored.ask("check?") == "ok");
}

}  // namespace test::cpu_times_test
