// SPDX-License-Identifier: Apache-2.0
#include "sys/witness.hpp"

#include <catch2/catch.hpp>
#include <sys/prctl.h>
#include <unistd.h>

#include "support/skip.hpp"
#include "sys/procfs.hpp"

namespace test::witness_test {

using icecore::sys::Status;
using icecore::sys::Witness;

TEST_CASE("a witness has ended, with the ids that were wanted and no capability") {
  if (::geteuid() != 0) return skip("needs root");
  pid_t pid = 0;
  {
    const auto witness = Witness::try_make(1234, 5678);
    REQUIRE(witness);
    pid = witness->pid();
    CHECK(icecore::sys::is_zombie(pid));
    const auto status = Status::read(pid);
    REQUIRE(status);
    CHECK(status->numbers("Uid") == std::vector<std::uint64_t>(4, 1234));
    CHECK(status->numbers("Gid") == std::vector<std::uint64_t>(4, 5678));
    CHECK(status->number("CapPrm", 16) == 0);
    CHECK(status->number("CapEff", 16) == 0);
  }
  CHECK_FALSE(Status::read(pid));
  CHECK(::prctl(PR_GET_DUMPABLE) == 1);  // it never had our memory under other ids
}

}  // namespace test::witness_test
