// SPDX-License-Identifier: Apache-2.0
//
// libicecore_guest inside a program that is snapshotted and restored.
#include <catch2/catch.hpp>
#include <icecore/error.hpp>
#include <icecore/image.hpp>
#include <icecore/restore.hpp>
#include <icecore/snapshot.hpp>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <future>
#include <set>
#include <thread>

#include "support/descriptor.hpp"
#include "support/patience.hpp"
#include "support/restored.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::guest_test {

/// Callbacks run beside the rest of the program.
template <class Answering>
void await_answer(Answering& program, const std::string& question, const std::string& wanted) {
  const Deadline deadline{kPatience};
  std::string answer;
  while ((answer = program.ask(question)) != wanted)
    if (deadline.passed())
      throw std::runtime_error{question + " is " + answer + " and not " + wanted};
}

TEST_CASE("callbacks are called before a snapshot and when the program has gone on") {
  TemporaryFolder folder;
  Target target{"guest_hooks"};
  for (const char* const count : {"1", "2"}) {
    icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
    CHECK(target.ask("before?") == count);
    await_answer(target, "gone", count);
  }
  CHECK(target.ask("order?") == "second first");
  CHECK(target.ask("restored?") == "0");
  CHECK(target.ask("generation?") == "0");
}

TEST_CASE("each restore has its own identity, variables and arguments") {
  TemporaryFolder folder;
  Target target{"guest_hooks"};
  const std::string pids = GENERATE("automatic", "namespace");
  icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
  std::set<std::string> ids{target.ask("id?")};
  for (int i = 0; i < 5; ++i) {
    icecore::RestoreOptions options;
    if (pids == "namespace") options.pids = icecore::Pids::in_namespace;
    options.invocation = {.variables = {"A=1", "NUMBER=" + std::to_string(i), "EMPTY="},
                          .arguments = {"one", "", "three"}};
    Restored restored{folder / "image", options};
    await_answer(restored, "restored?", "1");
    CHECK(restored.ask("generation?") == "1");
    CHECK(restored.ask("variable? NUMBER") == std::to_string(i));
    CHECK(restored.ask("variable? EMPTY") == "");
    CHECK(restored.ask("variable? NUMB") == "none");
    CHECK(restored.ask("arguments?") == "one||three|");
    CHECK(restored.ask("gone") == "0");
    CHECK(restored.ask("check?") == "ok");
    ids.insert(restored.ask("id?"));
  }
  CHECK(ids.size() == 6);
  CHECK(target.ask("arguments?") == "");
}

TEST_CASE("a process that was restored can be snapshotted and restored again") {
  TemporaryFolder folder;
  Target target{"guest_hooks"};
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  Restored restored{folder / "image"};
  await_answer(restored, "restored?", "1");
  icecore::snapshot(restored.pid(), folder / "second", {.fsync = false});
  CHECK(restored.ask("before?") == "2");
  Restored again{folder / "second"};
  await_answer(again, "restored?", "2");
  CHECK(again.ask("generation?") == "2");
}

TEST_CASE("a callback can refuse a snapshot") {
  TemporaryFolder folder;
  Target target{"guest_hooks"};
  CHECK(target.ask("refuse") == "done");
  try {
    icecore::snapshot(target.pid(), folder / "image");
    FAIL("it was taken");
  } catch (const icecore::Error& error) {
    CHECK(error.code() == icecore::Errc::unsupported);
    REQUIRE(error.reasons().size() == 1);
    CHECK(error.reasons()[0].find("refuses") != std::string::npos);
  }
  CHECK(!std::filesystem::exists(folder / "image"));
  CHECK(target.running());
  CHECK(target.ask("accept") == "done");
  await_answer(target, "gone", "1");
  icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
}

TEST_CASE("a callback that hangs makes no snapshot, and no hang") {
  TemporaryFolder folder;
  Target target{"guest_hooks"};
  CHECK(target.ask("hang") == "done");
  try {
    icecore::snapshot(target.pid(), folder / "image",
                      {.hook_patience = std::chrono::milliseconds{50}});
    FAIL("it was taken");
  } catch (const icecore::Error& error) {
    CHECK(error.code() == icecore::Errc::unsupported);
  }
  CHECK(target.running());
  CHECK(target.ask("accept") == "done");
  await_answer(target, "gone", "1");
  icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
  CHECK(target.running());
}

/// So that it hears of several things at once.
void stop(pid_t child) {
  must(::kill(child, SIGSTOP), "stop");
  ::siginfo_t ignored{};
  must(::waitid(P_PID, static_cast<::id_t>(child), &ignored, WSTOPPED), "wait until it stands");
}

/// What has been rung and not yet been heard: of all eventfds of a process.
std::uint64_t unheard(pid_t pid) {
  std::uint64_t sum = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator{"/proc/" + std::to_string(pid) + "/fdinfo"}) {
    std::ifstream info{entry.path()};
    for (std::string field, value; info >> field >> value;)
      if (field == "eventfd-count:") sum += std::stoull(value, nullptr, 16);
  }
  return sum;
}

TEST_CASE("a snapshot that begins before the end of another was heard is taken") {
  TemporaryFolder folder;
  Target target{"guest_hooks"};
  stop(target.pid());
  icecore::let_guest_go_on(target.pid());
  const std::uint64_t rung = unheard(target.pid());
  CHECK(rung != 0);
  auto taken = std::async(std::launch::async, [&] {
    icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
  });
  await([&] { return unheard(target.pid()) > rung; }, "the snapshot never began");
  must(::kill(target.pid(), SIGCONT), "continue");
  taken.get();
  CHECK(target.ask("before?") == "1");
  await_answer(target, "gone", "1");
}

TEST_CASE("a snapshot that was given up before it was heard of calls nobody") {
  TemporaryFolder folder;
  Target target{"guest_hooks"};
  stop(target.pid());
  CHECK_THROWS_AS(icecore::snapshot(target.pid(), folder / "image",
                                    {.hook_patience = std::chrono::milliseconds{20}}),
                  icecore::Error);
  must(::kill(target.pid(), SIGCONT), "continue");
  icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
  CHECK(target.ask("before?") == "1");
  await_answer(target, "gone", "1");
  Restored restored{folder / "image", {.pids = icecore::Pids::in_namespace}};
  await_answer(restored, "restored?", "1");
  CHECK(restored.ask("before?") == "1");
}

TEST_CASE("of two that snapshot one program at once the second is refused, and calls nobody") {
  TemporaryFolder folder;
  Target target{"guest_hooks"};
  CHECK(target.ask("hang") == "done");
  auto first = std::async(std::launch::async, [&] {
    icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
  });
  await([&] { return target.ask("before?") == "1"; }, "the first never began");
  try {
    icecore::snapshot(target.pid(), folder / "other");
    FAIL("it was taken");
  } catch (const icecore::Error& error) {
    CHECK(error.code() == icecore::Errc::unsupported);
    CHECK_THAT(error.what(), Catch::Contains("another snapshot of it is being taken"));
  }
  icecore::let_guest_go_on(target.pid());  // as whoever was refused does
  CHECK(target.ask("gone") == "0");
  CHECK(target.ask("accept") == "done");
  first.get();
  await_answer(target, "gone", "1");
  CHECK(target.ask("before?") == "1");
  CHECK(Restored{folder / "image", {.pids = icecore::Pids::in_namespace}}.running());
  icecore::snapshot(target.pid(), folder / "other", {.fsync = false});
  CHECK(target.ask("before?") == "2");
}

TEST_CASE("many that snapshot one program at once: each has an image or is told why not") {
  TemporaryFolder folder;
  Target target{"guest_hooks"};
  constexpr int kThreads = 4, kRounds = 10;
  std::vector<std::future<int>> all;
  for (int i = 0; i < kThreads; ++i)
    all.push_back(std::async(std::launch::async, [&, i] {
      int taken = 0;
      for (int round = 0; round < kRounds; ++round) try {
          const auto image = folder / (std::to_string(i) + "-" + std::to_string(round));
          icecore::snapshot(target.pid(), image, {.fsync = false});
          icecore::Image::open(image).verify();
          ++taken;
        } catch (const icecore::Error& error) {
          const std::string_view why = error.what();
          if (why.find("another snapshot") == why.npos && why.find("already traced") == why.npos)
            throw;
        }
      return taken;
    }));
  int taken = 0;
  for (auto& each : all) taken += each.get();
  CHECK(taken > 0);
  CHECK(target.ask("before?") == std::to_string(taken));
  await_answer(target, "gone", std::to_string(taken));
}

TEST_CASE("a callback may fork, but no child may be left") {
  TemporaryFolder folder;
  Target target{"guest_hooks"};
  CHECK(target.ask("fork_in_callback") == "done");
  icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
  CHECK(Restored{folder / "image", {.pids = icecore::Pids::in_namespace}}.running());
  CHECK(target.ask("leave_child") == "done");
  try {
    icecore::snapshot(target.pid(), folder / "image");
    FAIL("it was taken");
  } catch (const icecore::Error& error) {
    CHECK(error.code() == icecore::Errc::unsupported);
    CHECK_THAT(error.what(), Catch::Contains("child"));
  }
  CHECK(target.running());
}

TEST_CASE("a callback that throws ends its program, and the snapshot") {
  TemporaryFolder folder;
  Target target{"guest_hooks"};
  CHECK(target.ask("throw") == "done");
  try {
    icecore::snapshot(target.pid(), folder / "image");
    FAIL("it was taken");
  } catch (const icecore::Error& error) {
    CHECK(error.code() == icecore::Errc::target_gone);
  }
  CHECK(exit_status(target.process().wait()) == 128 + SIGABRT);
  CHECK(!std::filesystem::exists(folder / "image"));
}

TEST_CASE("a callback that hangs after a restore does not keep the program from running") {
  TemporaryFolder folder;
  Target target{"guest_hooks"};
  CHECK(target.ask("hang_after") == "done");
  icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
  Restored restored{folder / "image", {.pids = icecore::Pids::in_namespace}};
  CHECK(restored.running());
  CHECK(restored.ask("restored?") == "0");
  CHECK(restored.ask("accept") == "done");
  await_answer(restored, "restored?", "1");
}

TEST_CASE("a child of such a program starts again from nothing") {
  TemporaryFolder folder;
  Target target{"guest_hooks"};
  CHECK(target.ask("fork") == "ok");
  icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
  Restored restored{folder / "image", {.pids = icecore::Pids::in_namespace}};
  CHECK(restored.ask("fork") == "ok");
}

TEST_CASE("snapshot me now: nobody is there who would") {
  Target target{"guest_hooks"};
  CHECK(target.ask("snapshot") == "2");
}

TEST_CASE("a program that is told twice at once to go on goes on") {
  const std::string name = "icecore/test/" + std::to_string(::getpid());
  ::sockaddr_un address{};
  address.sun_family = AF_UNIX;
  name.copy(address.sun_path + 1, name.size());
  const Descriptor supervisor{must(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket")};
  must(::bind(supervisor.get(), reinterpret_cast<const ::sockaddr*>(&address),
              static_cast<::socklen_t>(offsetof(::sockaddr_un, sun_path) + 1 + name.size())),
       "bind");
  Target target =
      Target::of_command({"/usr/bin/env", "NOTIFY_SOCKET=@" + name, target_path("guest_hooks")});
  auto outcome = std::async(std::launch::async, [&] { return target.ask("snapshot"); });
  char text[100];
  must(::recv(supervisor.get(), text, sizeof text, 0), "recv");
  stop(target.pid());
  icecore::let_guest_go_on(target.pid());
  icecore::let_guest_go_on(target.pid());
  must(::kill(target.pid(), SIGCONT), "continue");
  CHECK(outcome.get() == "0");
}

TEST_CASE("an invocation that is too large is refused") {
  TemporaryFolder folder;
  Target target{"tiny"};
  icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
  icecore::RestoreOptions options{.pids = icecore::Pids::in_namespace};
  options.invocation.arguments = {std::string(70'000, 'x')};
  CHECK_THROWS_AS(icecore::restore(icecore::Image::open(folder / "image"), options),
                  icecore::Error);
  CHECK(target.running());
}

/// guest_hooks under `icecore run --ready guest`.
std::pair<Conversation, Process> run_guest(const std::string& image, const std::string& number) {
  Conversation talk = make_conversation();
  Process tool =
      Process::start({ICECORE_TOOL, "run", "-o", image, "--ready", "guest", "--env", "N=" + number,
                      "--", target_path("guest_hooks"), "--", "argument", number},
                     talk.streams());
  talk.begin();
  return {std::move(talk), std::move(tool)};
}

TEST_CASE("run --ready guest: the program says when, and learns what became of it") {
  TemporaryFolder folder;
  const std::string image = folder / "image";
  const auto run = [&](const std::string& number) { return run_guest(image, number); };
  std::string id;
  {
    auto [talk, tool] = run("0");
    CHECK(talk.hear() == "ready");
    CHECK(talk.ask("variable? N") == "0");
    CHECK(talk.ask("arguments?") == "argument|0|");
    id = talk.ask("id?");
    CHECK(talk.ask("snapshot") == "0");  // gone on
    const Deadline deadline{kPatience};
    while (!std::filesystem::exists(image + ".entry") && !deadline.passed())
      std::this_thread::yield();
    talk.hang_up();
    CHECK(exit_status(tool.wait()) == 0);
  }
  for (const std::string number : {"1", "2"}) {
    auto [talk, tool] = run(number);
    CHECK(talk.hear() == "1");  // restored: what "snapshot" answers here
    CHECK(talk.ask("variable? N") == number);
    CHECK(talk.ask("arguments?") == "argument|" + number + "|");
    CHECK(talk.ask("id?") != id);
    CHECK(talk.ask("restored?") == "1");
    talk.hang_up();
    CHECK(exit_status(tool.wait()) == 0);
  }
}

TEST_CASE("run --ready guest: callbacks that hang keep the program no longer than they have time") {
  TemporaryFolder folder;
  const std::string image = folder / "image";
  const auto [question, outcome] = GENERATE(
      table<std::string, std::string>({{"hang", "3"}, {"hang_gone", "0"}, {"hang_after", "0"}}));
  INFO(question);
  const auto begin = std::chrono::steady_clock::now();
  auto [talk, tool] = run_guest(image, "0");
  CHECK(talk.hear() == "ready");
  CHECK(talk.ask("deadline 50") == "done");
  CHECK(talk.ask(question) == "done");
  CHECK(talk.ask("snapshot") == outcome);
  // Its timeout is 20 s, and that of whoever takes the snapshot 10.
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds{9});
  if (question == "hang") {
    CHECK(talk.ask("accept") == "done");
    await_answer(talk, "gone", "1");  // the snapshot was given up, since it came too late
  } else {
    await([&] { return std::filesystem::exists(image + ".entry"); }, "no image");
  }
  talk.hang_up();
  CHECK(exit_status(tool.wait()) == 0);
  CHECK(std::filesystem::exists(image) == (question != "hang"));
  if (question != "hang_after") return;

  const auto restored_at = std::chrono::steady_clock::now();
  auto [again, restored] = run_guest(image, "1");
  CHECK(again.hear() == "1");  // restored: what "snapshot" answers here
  CHECK(std::chrono::steady_clock::now() - restored_at < std::chrono::seconds{9});
  CHECK(again.ask("restored?") == "0");
  CHECK(again.ask("accept") == "done");
  await_answer(again, "restored?", "1");
  again.hang_up();
  CHECK(exit_status(restored.wait()) == 0);
}

// ---- Python
// -----------------------------------------------------------------------------------------

TEST_CASE("python: no two restores draw the same random numbers") {
  if (run({"/usr/bin/python3", "-c", "import numpy"}).status != 0)
    return skip("needs /usr/bin/python3 with numpy");
  TemporaryFolder folder;
  const std::filesystem::path source = ICECORE_SOURCE_DIR;
  Target target =
      Target::of_command({"/usr/bin/env", "PYTHONPATH=" + (source / "python").string(),
                          std::string{"ICECORE_GUEST_LIBRARY="} + ICECORE_GUEST, "/usr/bin/python3",
                          source / "tests/programs/with_icecore.py"});
  CHECK(target.ask("available?") == "True");
  icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
  const std::vector<std::string> sources = {"urandom", "random",  "numpy", "uuid4",  "uuid1",
                                            "ssl",     "secrets", "id",    "openssl"};
  std::map<std::string, std::set<std::string>> seen;
  constexpr std::size_t kRestores = 100;
  const icecore::Image image = icecore::Image::open(folder / "image");
  for (std::size_t i = 0; i < kRestores; ++i) {
    Restored restored{folder / "image", {.pids = icecore::Pids::in_namespace}};
    await_answer(restored, "restored?", "1");
    for (const std::string& name : sources) seen[name].insert(restored.ask(name));
  }
  for (const std::string& name : sources) {
    INFO(name);
    CHECK(seen[name].size() == kRestores);
  }
  CHECK(target.ask("ping") == "pong");
}

TEST_CASE("python: an exception in a callback refuses the snapshot") {
  TemporaryFolder folder;
  const std::filesystem::path source = ICECORE_SOURCE_DIR;
  if (run({"/usr/bin/python3", "-c", "import numpy"}).status != 0)
    return skip("needs /usr/bin/python3 with numpy");
  Target target =
      Target::of_command({"/usr/bin/env", "PYTHONPATH=" + (source / "python").string(),
                          std::string{"ICECORE_GUEST_LIBRARY="} + ICECORE_GUEST, "/usr/bin/python3",
                          source / "tests/programs/with_icecore.py"});
  CHECK(target.ask("fail") == "done");
  CHECK_THROWS_AS(icecore::snapshot(target.pid(), folder / "image"), icecore::Error);
  CHECK(target.ask("ping") == "pong");
}

}  // namespace test::guest_test
