// SPDX-License-Identifier: Apache-2.0
//
// postgres, one process of it: SysV shared memory under a key, another user, a database that is
// open.  Three rounds, each of them asked for a table that is in no file.
#include <catch2/catch.hpp>
#include <icecore/snapshot.hpp>

#include "support/restored.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::postgres_test {

namespace fs = std::filesystem;

const std::string kPrograms = "/usr/lib/postgresql/15/bin/";

/// postgres does not run as root.
Arguments as_postgres(const Arguments& command) {
  Arguments all = {"setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"};
  all.insert(all.end(), command.begin(), command.end());
  return all;
}

/// What a query gives, between the quotes of `1: n = "…"`.
std::string value_of(Conversation& conversation, const std::string& query) {
  conversation.tell(query);
  for (;;) {
    const std::string line = conversation.hear();
    const std::string begin = " = \"";
    if (const std::size_t at = line.find(begin); at != std::string::npos)
      return line.substr(at + begin.size(), line.find('"', at + begin.size()) - at - begin.size());
    if (line.find("ERROR") != std::string::npos) return line;
  }
}

void expect_works(Conversation& conversation, const std::string& secret) {
  CHECK(value_of(conversation, "select n from kept") == secret);
  CHECK(value_of(conversation, "select count(*) from stored") == "1000");
  conversation.tell("update stored set n = n + 1");
}

TEST_CASE("programs/postgres") {
  if (!fs::exists(kPrograms + "initdb")) return skip("postgresql-15 is not installed");
  if (::geteuid() != 0 || !in_path("setpriv")) return skip("needs root and setpriv");
  TemporaryFolder folder;
  fs::permissions(folder.path(), fs::perms::all);
  const std::string data = folder / "data", image = folder / "image";
  const Outcome made =
      run(as_postgres({kPrograms + "initdb", "-D", data, "--no-sync", "-A", "trust"}));
  INFO(made.err);
  REQUIRE(made.status == 0);

  Conversation conversation = make_conversation();
  Process postgres = Process::start(
      as_postgres({kPrograms + "postgres", "--single", "-c", "fsync=off", "-D", data, "postgres"}),
      conversation.streams());
  conversation.begin();
  conversation.tell("create table stored as select generate_series(1, 1000) as n");
  conversation.tell("create temp table kept as select (random() * 1000000)::int as n");
  const std::string secret = value_of(conversation, "select n from kept");
  expect_works(conversation, secret);
  CHECK(value_of(conversation, "select 'yes'") == "yes");  // it has done all that
  icecore::snapshot(postgres.pid(), image, {.kill = true, .fsync = false});
  postgres.await_end();
  for (int round = 1; round <= 3; ++round) {
    INFO("round " << round);
    Restored restored{image};
    expect_works(restored.conversation(), secret);
    CHECK(value_of(restored.conversation(), "select 'yes'") == "yes");
    if (round == 3) break;
    icecore::snapshot(restored.pid(), image, {.kill = true, .fsync = false});
    restored.await_end();
  }
}

}  // namespace test::postgres_test
