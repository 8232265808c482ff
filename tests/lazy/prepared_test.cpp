// SPDX-License-Identifier: Apache-2.0
//
// A process that is restored but for its last step.
#include <catch2/catch.hpp>
#include <icecore/snapshot.hpp>
#include <signal.h>

#include <fstream>

#include "support/patience.hpp"
#include "support/restored.hpp"
#include "support/run.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::prepared_test {

namespace fs = std::filesystem;

struct Fixture {
  TemporaryFolder folder;
  std::string secret;
  Conversation conversation = make_conversation();

  explicit Fixture(const std::string& name = "large_memory", const Arguments& arguments = {"16"}) {
    Target target{name, arguments};
    secret = target.ask("secret?");
    icecore::snapshot(target.pid(), image(), {.kill = true, .fsync = false});
    target.process().await_end();
  }

  fs::path image() const { return folder / "image"; }
  fs::path working_set() const { return folder / "image.ws"; }

  icecore::PreparedProcess prepare() const {
    icecore::RestoreOptions options;
    const Streams streams = conversation.streams();
    options.standard_streams = {streams.in, streams.out, streams.error};
    return icecore::prepare(icecore::Image::open(image()), options);
  }
};

TEST_CASE("a prepared process runs when it is started and not before") {
  Fixture fixture;
  icecore::PreparedProcess prepared = fixture.prepare();
  fixture.conversation.tell("secret?");
  CHECK_THROWS(fixture.conversation.hear(std::chrono::milliseconds{50}));
  CHECK(::kill(prepared.pid(), 0) == 0);
  CHECK(prepared.report().lazy);
  icecore::RestoredProcess process = std::move(prepared).start();
  fixture.conversation.begin();
  CHECK(fixture.conversation.hear() == fixture.secret);
  CHECK(fixture.conversation.ask("check?") == "ok");
  fixture.conversation.tell("exit 3");
  CHECK(exit_status(process.wait()) == 3);
}

/// A line of /proc/PID/status that tells of memory.
std::size_t kib(pid_t pid, const std::string& name) {
  std::ifstream status{"/proc/" + std::to_string(pid) + "/status"};
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(name)) return std::stoul(line.substr(name.size()));
  throw std::runtime_error{"no " + name};
}

/// How much of mapped files is in the memory of a process.
std::size_t file_kib(pid_t pid) { return kib(pid, "RssFile:"); }

TEST_CASE("a prepared process has the pages of files that it used last time") {
  constexpr std::chrono::milliseconds kRecord{500};
  Fixture fixture;
  const auto file_kib_when_prepared = [&] {
    const icecore::PreparedProcess prepared = fixture.prepare();
    return file_kib(prepared.pid());
  };
  const std::size_t without_record = file_kib_when_prepared();
  std::size_t used = 0;
  {
    Restored recorded{fixture.image(), {.record = icecore::Record::yes, .record_for = kRecord}};
    CHECK(recorded.ask("check?") == "ok");
    CHECK(recorded.ask("ping") == "pong");
    used = file_kib(recorded.pid());
    await([&] { return std::filesystem::exists(fixture.working_set()); }, "no working set");
  }
  const std::size_t with_record = file_kib_when_prepared();
  CHECK(used > without_record);
  CHECK(with_record > without_record + (used - without_record) / 2);
  CHECK(with_record <= used + 256);  // what it did while it was recorded, and no more
}

TEST_CASE("a prepared process takes its working set alone until it is started") {
  Fixture fixture;
  {
    Restored recorded{
        fixture.image(),
        {.record = icecore::Record::yes, .record_for = std::chrono::milliseconds{100}}};
    recorded.ask("touch 16 read");
    await([&] { return fs::exists(fixture.working_set()); }, "no working set");
  }
  icecore::PreparedProcess prepared = fixture.prepare();
  const std::size_t at_first = kib(prepared.pid(), "RssAnon:");
  CHECK(prepared.report().prefetched_bytes > 0);
  {
    // One that runs, and has been filled meanwhile.
    Restored running{fixture.image(), {.pids = icecore::Pids::in_namespace}};
    CHECK(running.process().wait_filled());
    CHECK(kib(running.pid(), "RssAnon:") > at_first + 8 * 1024);
  }
  CHECK(kib(prepared.pid(), "RssAnon:") == at_first);
  icecore::RestoredProcess process = std::move(prepared).start();
  fixture.conversation.begin();
  CHECK(fixture.conversation.ask("secret?") == fixture.secret);
  CHECK(process.wait_filled());
  CHECK(kib(process.pid(), "RssAnon:") > at_first + 8 * 1024);
  fixture.conversation.tell("exit 0");
  CHECK(exit_status(process.wait()) == 0);
}

TEST_CASE("a prepared process that never runs leaves no working set") {
  Fixture fixture;
  { const icecore::PreparedProcess prepared = fixture.prepare(); }  // its pager has ended, too
  CHECK_FALSE(fs::exists(fixture.working_set()));
  const icecore::PreparedProcess prepared = fixture.prepare();
  CHECK(prepared.report().recording);
}

TEST_CASE("timers of a prepared process begin when it is started") {
  const std::string name = GENERATE("ringing_timers", "interval_timers", "expired_timers");
  Fixture fixture{name, {}};
  icecore::PreparedProcess prepared = fixture.prepare();
  fixture.conversation.tell("secret?");
  CHECK_THROWS(fixture.conversation.hear(std::chrono::milliseconds{50}));
  const icecore::RestoredProcess process = std::move(prepared).start();
  fixture.conversation.begin();
  CHECK(fixture.conversation.hear() == fixture.secret);
  CHECK(fixture.conversation.ask("check?") == "ok");
}

TEST_CASE("a prepared process goes with its preparer") {
  Fixture fixture;
  pid_t pid = 0;
  {
    const icecore::PreparedProcess prepared = fixture.prepare();
    pid = prepared.pid();
    CHECK(::kill(pid, 0) == 0);
  }
  CHECK(::kill(pid, 0) == -1);
}

TEST_CASE("a prepared process that is killed has ended when it is started") {
  const Arguments target = GENERATE(
      values<Arguments>({{"many_threads", "0"}, {"many_threads", "20"}, {"interval_timers", ""}}));
  Fixture fixture{target[0], {target[1]}};
  icecore::PreparedProcess prepared = fixture.prepare();
  ::kill(prepared.pid(), SIGKILL);
  icecore::RestoredProcess process = std::move(prepared).start();
  const int status = process.wait();
  CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
}

TEST_CASE("several are prepared at once and started in any order") {
  Fixture first, second, third;
  icecore::PreparedProcess a = first.prepare(), b = second.prepare(), c = third.prepare();
  for (auto* one : {&c, &a, &b}) {
    Fixture& fixture = one == &a ? first : one == &b ? second : third;
    icecore::RestoredProcess process = std::move(*one).start();
    fixture.conversation.begin();
    CHECK(fixture.conversation.ask("secret?") == fixture.secret);
    fixture.conversation.tell("exit 0");
    process.wait();
  }
}

TEST_CASE("icecore restore --prepare starts the process when a line comes, or SIGCONT") {
  Fixture fixture;
  const bool by_line = GENERATE(true, false);
  Conversation conversation = make_conversation();
  Process tool =
      Process::start({ICECORE_TOOL, "restore", fixture.image(), "--prepare", "--pids", "same"},
                     conversation.streams());
  conversation.begin();
  if (by_line) {
    conversation.tell("go");
  } else {
    const Deadline deadline{kPatience};
    while (children_of(tool.pid()).empty())
      if (deadline.passed()) throw std::runtime_error{"nothing is prepared"};
    tool.signal(SIGCONT);
  }
  CHECK(conversation.ask("secret?") == fixture.secret);
  conversation.tell("exit 5");
  CHECK(exit_status(tool.wait()) == 5);
}

TEST_CASE("icecore restore --prepare ends with its standard input") {
  Fixture fixture;
  Conversation conversation = make_conversation();
  Process tool = Process::start({ICECORE_TOOL, "restore", fixture.image(), "--prepare"},
                                conversation.streams());
  conversation.begin();
  conversation.hang_up();
  CHECK(exit_status(tool.wait()) == 125);
}

}  // namespace test::prepared_test
