// SPDX-License-Identifier: Apache-2.0
//
// Real programs, three rounds each.  Each is asked, before and after, for what only its memory
// knows.
#include <catch2/catch.hpp>
#include <icecore/snapshot.hpp>

#include "support/restored.hpp"
#include "support/skip.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::programs_test {

struct Program {
  std::string name;
  Arguments command;  ///< "FOLDER" stands for the test's folder
  std::string secret = "secret?";
  std::string check = "check?";
};

std::string script(const std::string& name) {
  return std::string{ICECORE_SOURCE_DIR} + "/tests/programs/" + name;
}

const Program kPrograms[] = {
    {.name = "python3 with numpy", .command = {"/usr/bin/python3", script("with_numpy.py")}},
    {.name = "python3 with torch", .command = {"/usr/bin/python3", script("with_torch.py")}},
    {.name = "bash", .command = {"/bin/bash", script("loop.bash")}},
    {.name = "perl", .command = {"/usr/bin/perl", script("words.pl")}},
    {.name = "python3 with a database in a transaction",
     .command = {"/usr/bin/python3", script("with_sqlite.py"), "FOLDER"}},
    {.name = "lua", .command = {"/usr/bin/lua5.4", script("words.lua")}},
    {.name = "ruby", .command = {"/usr/bin/ruby", script("words.rb")}},
    {.name = "php", .command = {"/usr/bin/php", script("words.php")}},
    // The table of `secret` is in the file, the one joined to it only in memory.
    {.name = "sqlite3",
     .command = {"/usr/bin/sqlite3", "-batch", "-cmd", "pragma temp_store = memory", "-cmd",
                 "create table stored (n); insert into stored values (random())", "-cmd",
                 "create temp table kept (n); insert into kept values (random())", "-cmd",
                 ".print ready", "FOLDER/database"},
     .secret =
         "select stored.n || '/' || kept.n from stored, kept where kept.n is not null limit 1;",
     .check =
         "insert into stored values (1); insert into kept values (null); pragma integrity_check;"},
    {.name = "a static program of musl", .command = {target_path("static_musl")}},
    {.name = "a C++ program with 200 threads", .command = {target_path("many_threads"), "200"}},
};

Arguments with_folder(Arguments command, const std::string& folder) {
  for (std::string& word : command)
    if (word.starts_with("FOLDER")) word.replace(0, 6, folder);
  return command;
}

void goes_three_rounds(const Program& program) {
  if (::access(program.command[0].c_str(), X_OK) != 0)
    throw NotHere{program.command[0] + " is not installed"};
  TemporaryFolder folder;
  const std::string image = folder / "image";
  Target target = Target::of_command(with_folder(program.command, folder.path()));
  const std::string secret = target.ask(program.secret);
  CHECK(target.ask(program.check) == "ok");
  icecore::snapshot(target.pid(), image, {.kill = true, .fsync = false});
  target.process().await_end();

  for (int round = 1; round <= 3; ++round) {
    INFO("round " << round);
    Restored restored{image};
    REQUIRE(restored.ask(program.secret) == secret);
    CHECK(restored.ask(program.check) == "ok");
    if (round == 3) break;
    icecore::snapshot(restored.pid(), image, {.kill = true, .fsync = false});
    restored.await_end();
  }
}

/// One test case each, so that each can be skipped by itself.
class ThreeRounds : public Catch::ITestInvoker {
 public:
  explicit ThreeRounds(const Program& program) : program_(program) {}

  void invoke() const override {
    try {
      goes_three_rounds(program_);
    } catch (const NotHere& reason) {
      skip(reason.what());
    }
  }

 private:
  const Program& program_;
};

const bool registered = [] {
  for (const Program& program : kPrograms) {
    const std::string name = "programs/" + program.name;
    Catch::getMutableRegistryHub().registerTest(
        Catch::makeTestCase(new ThreeRounds{program}, "", {name, "[programs]"},
                            Catch::SourceLineInfo{__FILE__, __LINE__}));
  }
  return true;
}();

}  // namespace test::programs_test
