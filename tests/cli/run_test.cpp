// SPDX-License-Identifier: Apache-2.0
//
// `icecore run`: the first time cold and snapshotted, later restored; and whatever goes wrong, the
// program runs.
#include "support/run.hpp"

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <icecore/image.hpp>
#include <icecore/snapshot.hpp>
#include <icecore/store.hpp>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <iterator>
#include <memory>
#include <thread>

#include "support/conversation.hpp"
#include "support/local_port.hpp"
#include "support/orphans.hpp"
#include "support/pagers.hpp"
#include "support/private_mounts.hpp"
#include "support/restored.hpp"
#include "support/skip.hpp"
#include "support/stepper.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::run_test {

namespace fs = std::filesystem;

std::string contents(const fs::path& file) {
  std::ifstream in{file};
  return {std::istreambuf_iterator<char>{in}, {}};
}

/// A program that `icecore run` stands for.
class Running {
 public:
  Running(const fs::path& errors, Arguments arguments, Arguments prefix = {})
      : errors_(errors),
        conversation_(make_conversation()),
        tool_(start(std::move(prefix), arguments)) {
    conversation_.begin();
  }

  /// It may have been snapshotted between being ready and saying so: then it says so once more.
  std::string ask(std::string_view question) {
    std::string answer = conversation_.ask(question);
    return answer == "ready" ? conversation_.hear() : answer;
  }
  Conversation& conversation() { return conversation_; }
  Process& tool() { return tool_; }
  int end() {
    conversation_.hang_up();
    return exit_status(tool_.wait());
  }

  std::string errors() const { return contents(errors_); }
  bool says(std::string_view text) const { return errors().find(text) != std::string::npos; }
  bool cold() const { return says("\"start\":\"cold\""); }
  bool restored() const { return says("\"start\":\"restored\""); }

  /// That it stands for, once it has said so.
  pid_t program() const {
    const std::string text = errors(), field = "\"pid\":";
    return std::stoi(text.substr(text.rfind(field) + field.size()));
  }

 private:
  Process start(Arguments command, const Arguments& arguments) {
    command.insert(command.end(), {ICECORE_TOOL, "run", "--json"});
    command.insert(command.end(), arguments.begin(), arguments.end());
    const Descriptor file{
        must(::open(errors_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), "stderr")};
    Streams streams = conversation_.streams();
    streams.error = file.get();
    return Process::start(command, streams);
  }

  fs::path errors_;
  Conversation conversation_;
  Process tool_;
};

struct Fixture {
  TemporaryFolder folder;
  int runs = 0;
  Arguments prefix = {};  ///< before `icecore run`

  fs::path store() const { return folder / "store"; }

  Running run(const Arguments& program, Arguments options = {}) {
    options.insert(options.begin(), {"--store", store(), "--key", "key"});
    options.emplace_back("--");
    options.insert(options.end(), program.begin(), program.end());
    return Running{folder / ("errors" + std::to_string(runs++)), std::move(options), prefix};
  }
  /// The target function, which says by itself when it is ready.
  Running run_function(Arguments arguments = {"notify"}, Arguments options = {}) {
    arguments.insert(arguments.begin(), target_path("function"));
    return run(arguments, std::move(options));
  }

  std::vector<icecore::StoreEntry> images() const {
    return icecore::Store::open(store()).list("key");
  }

  /// A snapshot is taken beside the life of the program.
  std::vector<icecore::StoreEntry> await_images(std::size_t count, const Running& running) const {
    const Deadline deadline{kPatience};
    while (images().size() != count) {
      if (deadline.passed()) throw std::runtime_error{"no image; " + running.errors()};
      std::this_thread::yield();
    }
    return images();
  }

  void await(const Running& running, std::string_view text) const {
    const Deadline deadline{kPatience};
    while (!running.says(text)) {
      if (deadline.passed()) throw std::runtime_error{"not said; but: " + running.errors()};
      std::this_thread::yield();
    }
  }

  /// Runs it cold until there is an image; its secret.
  std::string make_image(Arguments arguments = {"notify"}, const Arguments& options = {}) {
    const std::size_t before = images().size();
    Running cold = run_function(std::move(arguments), options);
    REQUIRE(cold.conversation().hear() == "ready");
    await_images(before + 1, cold);  // and then ask, so that no question is in the image
    std::string secret = cold.ask("secret?");
    CHECK(cold.cold());
    CHECK(cold.end() == 0);
    return secret;
  }
};

/// The image may have been taken before the program said that it is there.
std::string ask_secret(Running& restored) {
  const std::string answer = restored.ask("secret?");
  return answer == "ready" ? restored.conversation().hear() : answer;
}

/// Whether a run starts from the image that holds `secret`.
void expect_restored(Running running, const std::string& secret) {
  CHECK(ask_secret(running) == secret);
  CHECK(running.end() == 0);
  CHECK(running.restored());
}

void expect_cold(Running running) {
  CHECK(running.conversation().hear() == "ready");
  CHECK(running.ask("ping") == "pong");
  CHECK(running.end() == 0);
  INFO(running.errors());
  CHECK(running.cold());
}

TEST_CASE("run --json says how it started, and why") {
  Fixture fixture;
  Running cold = fixture.run_function();
  CHECK(cold.conversation().hear() == "ready");
  const fs::path image = fixture.await_images(1, cold)[0].image;
  fixture.await(cold, "\"snapshot\":\"" + image.native());
  CHECK(cold.end() == 0);
  CHECK(
      cold.says("\"start\":\"cold\",\"reason\":\"there is no image\",\"fallback\":false,\"pid\":"));

  Running restored = fixture.run_function();
  restored.ask("ping");
  CHECK(restored.end() == 0);
  CHECK(restored.says("\"start\":\"restored\",\"image\":\"" + image.native()));
  CHECK(restored.says("\"build_us\":"));

  fs::resize_file(image, fs::file_size(image) / 2);
  Running fallen_back = fixture.run_function();
  CHECK(fallen_back.conversation().hear() == "ready");
  CHECK(fallen_back.end() == 0);
  INFO(fallen_back.errors());
  CHECK(fallen_back.says("\"fallback\":true,\"failed_image\":\"" + image.native() +
                         "\",\"set_aside\":true"));
}

TEST_CASE("run: the second time it is restored") {
  Fixture fixture;
  const std::string secret = fixture.make_image();
  for (int i = 0; i < 2; ++i) expect_restored(fixture.run_function(), secret);
  CHECK(fixture.images()[0].restores == 2);
}

TEST_CASE("run: the standard streams are those of each invocation, whatever they are") {
  Fixture fixture;
  Running cold = fixture.run_function();  // standard error is a file here
  REQUIRE(cold.conversation().hear() == "ready");
  fixture.await_images(1, cold);
  cold.end();
  const Outcome outcome = icecore({"run", "--store", fixture.store(), "--key", "key", "--verbose",
                                   "--", target_path("function"), "notify"});
  INFO(outcome.err);
  CHECK(outcome.status == 0);
  CHECK(outcome.err.find("restored from") != std::string::npos);
}

TEST_CASE("run: ready by each way") {
  Fixture fixture;
  const fs::path file = fixture.folder / "is ready";
  const std::string way = GENERATE("file", "log", "delay", "notify");
  INFO(way);
  Arguments arguments, options;
  if (way == "file") arguments = {"file", file}, options = {"--ready", "file:" + file.string()};
  if (way == "log") options = {"--ready", "log:^rea"};
  if (way == "delay") options = {"--ready", "delay:0.1"};
  if (way == "notify") arguments = {"notify"}, options = {"--ready", "notify"};
  const std::string secret = fixture.make_image(arguments, options);
  expect_restored(fixture.run_function(arguments, options), secret);
}

TEST_CASE("run --ready log: a last line without an end is seen when it stands, or at the end") {
  Fixture fixture;
  const std::string close = GENERATE("", " exec >/dev/null;");
  INFO(close);
  Running running = fixture.run({"sh", "-c", "printf 'ready> ';" + close + " read line; exit 3"},
                                {"--ready", "log:^ready> $"});
  fixture.await_images(1, running);
  CHECK(running.end() == 3);
}

bool listens(int port) {
  const Descriptor socket = make_tcp_socket();
  const ::sockaddr_in address = local_address(port);
  return ::connect(socket.get(), reinterpret_cast<const ::sockaddr*>(&address), sizeof address) ==
         0;
}

TEST_CASE("run --ready log: lines of any length are searched and passed on") {
  const TemporaryFolder folder;
  const Outcome outcome =
      icecore({"run", "--verbose", "-o", folder / "image", "--ready", "log:.*ready", "--", "sh",
               "-c", "head -c 1000000 /dev/zero | tr '\\0' x; exit 7"});
  INFO(outcome.err);
  CHECK(outcome.status == 7);
  CHECK(outcome.out == std::string(1'000'000, 'x'));
}

/// `icecore run --ready log:` of a program that writes without end.
Process run_endless(const Fixture& fixture, int out, const fs::path& errors) {
  const Descriptor file{
      must(::open(errors.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600), "stderr")};
  return Process::start({ICECORE_TOOL, "run", "--json", "--store", fixture.store(), "--key", "key",
                         "--ready", "log:never", "--", "yes"},
                        {.in = 0, .out = out, .error = file.get()});
}

TEST_CASE("run --ready log: signals reach a program that writes without end") {
  const Fixture fixture;
  const fs::path errors = fixture.folder / "errors";
  const Descriptor nothing{must(::open("/dev/null", O_WRONLY | O_CLOEXEC), "open /dev/null")};
  Process tool = run_endless(fixture, nothing.get(), errors);
  const Deadline deadline{kPatience};
  while (contents(errors).find("\"start\"") == std::string::npos) REQUIRE(!deadline.passed());
  tool.signal(SIGTERM);
  CHECK(exit_status(tool.wait()) == 128 + SIGTERM);
}

TEST_CASE("run --ready log: signals end it where nobody reads") {
  const Fixture fixture;
  std::array<int, 2> ends{};
  must(::pipe2(ends.data(), O_CLOEXEC), "make a pipe");
  const Descriptor unread{ends[0]}, out{ends[1]};
  Process tool = run_endless(fixture, out.get(), fixture.folder / "errors");
  const Deadline deadline{kPatience};
  for (::pollfd room{out.get(), POLLOUT, 0}; ::poll(&room, 1, 0) == 1;) REQUIRE(!deadline.passed());
  // The first is the program's, the next one ours, which has only unread output left.
  do {
    REQUIRE(!deadline.passed());
    tool.signal(SIGTERM);
  } while (!tool.ended(std::chrono::milliseconds{20}));
  CHECK(exit_status(tool.wait()) == 128 + SIGTERM);
}

TEST_CASE("run --ready log: a program that goes on when its reader is gone keeps its status") {
  const TemporaryFolder folder;
  const std::string run = std::string{ICECORE_TOOL} + " run -o " + (folder / "image").string() +
                          " --ready log:never -- sh -c 'trap \"\" PIPE; while echo y; do :; done "
                          "2>/dev/null; exit 9'";
  const Outcome outcome = test::run({"bash", "-c", "{ " + run + "; echo $? >&2; } | head -n 1"});
  CHECK(outcome.out == "y\n");
  CHECK(outcome.err == "9\n");
}

TEST_CASE("run: ready when it listens on a port") {
  Fixture fixture;
  const int port = free_port();
  const Arguments arguments = {"listen", std::to_string(port)};
  const Arguments options = {"--ready", "port:" + std::to_string(port)};
  const std::string secret = fixture.make_image(arguments, options);
  Running restored = fixture.run_function(arguments, options);
  CHECK(ask_secret(restored) == secret);
  CHECK(listens(port));  // again
  CHECK(restored.end() == 0);
  CHECK(restored.restored());

  Running never = fixture.run_function({"listen", "0"}, {"--ready", "port:1", "--deadline", "0"});
  fixture.await(never, "was not ready");  // nobody listens on port 1
  CHECK(never.conversation().hear() == "ready");
  CHECK(never.ask("ping") == "pong");
  CHECK(never.end() == 0);
}

TEST_CASE("run: another script, argument or variable is another program") {
  Fixture fixture;
  const fs::path data = fixture.folder / "data";
  std::ofstream{data} << "1";
  const Arguments options = {"--depends", data, "--env-key", "HOME"};
  const std::string secret = fixture.make_image({"notify"}, options);
  expect_restored(fixture.run_function({"notify"}, options), secret);
  expect_cold(fixture.run_function({"notify", "more"}, options));
  expect_cold(fixture.run_function({"notify"}, {"--depends", data, "--env-key", "USER"}));
  std::ofstream{data} << "2";
  Running changed = fixture.run_function({}, options);
  CHECK(changed.conversation().hear() == "ready");
  CHECK(changed.end() == 0);
  CHECK(changed.cold());
}

TEST_CASE("run: a folder with links is the same the second time") {
  Fixture fixture;
  const fs::path folder = fixture.folder / "depended";
  fs::create_directories(folder / "inside");
  std::ofstream{folder / "inside" / "data"} << "1";
  fs::create_symlink("inside/data", folder / "file");
  fs::create_symlink("inside", folder / "folder");
  fs::create_symlink("..", folder / "inside" / "circle");
  fs::create_symlink("nothing", folder / "dangling");
  const fs::path link = fixture.folder / "link";
  fs::create_directory_symlink(folder, link);
  const Arguments options = {"--depends", GENERATE(true, false) ? folder : link};
  const std::string secret = fixture.make_image({"notify"}, options);
  expect_restored(fixture.run_function({"notify"}, options), secret);
  expect_restored(fixture.run_function({"notify"}, options), secret);
  fs::remove(folder / "dangling");
  fs::create_symlink("elsewhere", folder / "dangling");
  expect_cold(fixture.run_function({"notify"}, options));
}

TEST_CASE("run: an image that is too old is not used") {
  Fixture fixture;
  const std::string secret = fixture.make_image();
  expect_restored(fixture.run_function({"notify"}, {"--max-age", "1h"}), secret);
  expect_cold(fixture.run_function({"notify"}, {"--max-age", "0"}));
}

TEST_CASE("run: of an image from the future nobody knows its age, and the next one is used") {
  Fixture fixture;
  const std::string secret = fixture.make_image();
  const std::string entry = fixture.images()[0].image.native() + ".entry";
  std::ifstream in{entry};
  std::string text{std::istreambuf_iterator<char>{in}, {}};
  const std::size_t at = text.find("\"made_at_s\":") + 12;
  text.replace(at, text.find(',', at) - at, "9999999999");  // the clock has been set back since
  std::ofstream{entry} << text;
  expect_restored(fixture.run_function(), secret);  // to whom its age is all the same

  const Arguments young = {"--max-age", "1h"};
  std::string next;
  {
    Running cold = fixture.run_function({"notify"}, young);
    REQUIRE(cold.conversation().hear() == "ready");
    next = cold.ask("secret?");
    fixture.await_images(2, cold);
    CHECK(cold.end() == 0);
    CHECK(cold.says("the clock has been set back"));
  }
  expect_restored(fixture.run_function({"notify"}, young), next);
  expect_restored(fixture.run_function({"notify"}, young), next);
  CHECK(fixture.images().size() == 2);
}

TEST_CASE("run ends with the status of its program, cold and restored") {
  Fixture fixture;
  fixture.make_image();
  for (const bool cold : {true, false}) {
    Running running =
        fixture.run_function(cold ? Arguments{"file", "/dev/null"} : Arguments{"notify"});
    running.conversation().tell("exit 7");
    CHECK(exit_status(running.tool().wait()) == 7);
    CHECK(running.cold() == cold);
  }
}

TEST_CASE("signals sent to run reach its program, cold and restored") {
  Fixture fixture;
  fixture.make_image();
  for (const bool cold : {true, false}) {
    Running running =
        fixture.run_function(cold ? Arguments{"file", "/dev/null"} : Arguments{"notify"});
    running.ask("ping");
    running.tool().signal(SIGTERM);
    CHECK(exit_status(running.tool().wait()) == 128 + SIGTERM);
  }
}

TEST_CASE("run: it learns how its program ends also where SIGCHLD was ignored") {
  Fixture fixture;
  fixture.make_image();
  fixture.prefix = {"sh", "-c", "trap '' CHLD; exec \"$@\"", "sh"};
  for (const bool cold : {true, false}) {
    Running running =
        fixture.run_function(cold ? Arguments{"file", "/dev/null"} : Arguments{"notify"});
    running.ask("ping");
    running.conversation().tell("exit 7");
    CHECK(exit_status(running.tool().wait()) == 7);
    CHECK(running.restored() != cold);
  }
}

TEST_CASE("run: what it was started to ignore reaches a program that minds it all the same") {
  Fixture fixture;
  fixture.prefix = {"sh", "-c", "trap '' INT HUP; exec \"$@\"", "sh"};
  const fs::path script = fixture.folder / "script.py";
  std::ofstream{script} << "import os, signal, socket, sys\n"
                           "signal.signal(signal.SIGINT, lambda *_: print('caught', flush=True))\n"
                           "print('ready', flush=True)\n"
                           "name = os.environ['NOTIFY_SOCKET'].replace('@', '\\0')\n"
                           "with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:\n"
                           "  s.sendto(b'READY=1', name)\n"
                           "for line in sys.stdin: print('pong', flush=True)\n";
  for (const bool restored : {false, true}) {
    Running running = fixture.run({"/usr/bin/python3", script});
    if (!restored) {
      CHECK(running.conversation().hear() == "ready");
      fixture.await_images(1, running);
    }
    CHECK(running.ask("ping") == "pong");
    fixture.await(running, restored ? "\"start\":\"restored\"" : "\"start\":\"cold\"");
    running.tool().signal(SIGHUP);  // ignored by all
    running.tool().signal(SIGINT);
    CHECK(running.conversation().hear() == "caught");
    CHECK(running.ask("ping") == "pong");
    CHECK(running.end() == 0);
  }
}

TEST_CASE("run: a program that ends before it is ready is not snapshotted") {
  Fixture fixture;
  const auto [end, status] =
      GENERATE(table<std::string, int>({{"exit", 3}, {"crash", 128 + SIGSEGV}}));
  Running running = fixture.run_function({end, "3", "notify"});
  CHECK(exit_status(running.tool().wait()) == status);
  CHECK(fixture.images().empty());
}

TEST_CASE("run: a program has the pipes that its invocation has passed on, or none") {
  Fixture fixture;
  const Arguments with_pipe = {"bash", "-c", "exec 200> >(exec cat); exec \"$@\"", "bash"};
  fixture.prefix = with_pipe;
  const std::string secret = fixture.make_image();
  for (const bool passed_on : {true, false}) {
    fixture.prefix = passed_on ? with_pipe : Arguments{};
    Running restored = fixture.run_function();
    fixture.await(restored, "\"start\":");
    INFO(restored.errors());
    REQUIRE(restored.restored());
    CHECK(restored.ask("secret?") == secret);
    std::error_code none;
    const fs::path place = fmt::format("/proc/{}/fd/200", restored.program());
    CHECK(fs::read_symlink(place, none).native().starts_with("pipe:[") == passed_on);
    CHECK(restored.end() == 0);
  }
}

TEST_CASE("run: a program that never says that it is ready goes on") {
  Fixture fixture;
  Running running = fixture.run_function({}, {"--deadline", "0"});
  fixture.await(running, "was not ready");
  CHECK(running.conversation().hear() == "ready");
  CHECK(running.ask("notify") == "done");  // too late
  CHECK(running.ask("ping") == "pong");
  CHECK(running.end() == 0);
  CHECK(fixture.images().empty());
}

TEST_CASE("run: a notify socket that stays connected keeps no image from being restored") {
  if (!in_path("python3")) return skip("needs python3");
  Fixture fixture;
  const std::string script = R"(
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect("\0" + os.environ["NOTIFY_SOCKET"][1:])
s.send(b"READY=1")
sys.stdin.readline()
for i in range(2):
    try:
        s.send(b"STATUS=called")
        print("sent", flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
sys.stdin.readline()
)";
  {
    Running cold = fixture.run({"python3", "-c", script});
    fixture.await_images(1, cold);
    CHECK(cold.ask("") == "sent");
    CHECK(cold.end() == 0);
  }
  Running restored = fixture.run({"python3", "-c", script});
  CHECK(restored.ask("") == "Connection refused");
  CHECK(restored.end() == 0);
  INFO(restored.errors());
  CHECK(restored.restored());
}

TEST_CASE("run: being ready twice is being ready once") {
  Fixture fixture;
  Running running = fixture.run_function({"notify", "notify"});
  CHECK(running.conversation().hear() == "ready");
  CHECK(running.ask("notify") == "done");
  fixture.await_images(1, running);
  CHECK(running.ask("ping") == "pong");
  CHECK(running.end() == 0);
  CHECK(fixture.images().size() == 1);
}

TEST_CASE("run: a program that cannot be snapshotted goes on, and it is said once") {
  Fixture fixture;
  for (const bool first : {true, false}) {
    Running running = fixture.run_function({"packets", "notify"});
    CHECK(running.conversation().hear() == "ready");
    if (first) fixture.await(running, "cannot be snapshotted");
    CHECK(running.ask("ping") == "pong");
    CHECK(running.end() == 0);
    CHECK(running.says("not snapshotted") == first);
  }
  CHECK(icecore::Store::open(fixture.store()).refusal("key").find("socket") != std::string::npos);
  const Outcome shown = icecore({"store", "show", fixture.store(), "key"});
  CHECK(shown.out.find("could not be snapshotted last") != std::string::npos);
}

TEST_CASE("run: a file that changes between start and ready is not what the image is of") {
  Fixture fixture;
  const fs::path data = fixture.folder / "data";
  std::ofstream{data} << "1";
  Running running = fixture.run_function({"write", data, "22", "notify"}, {"--depends", data});
  CHECK(running.conversation().hear() == "ready");
  fixture.await(running, "has changed since the program was started");
  CHECK(running.ask("ping") == "pong");
  CHECK(running.end() == 0);
  CHECK(fixture.images().empty());
}

TEST_CASE("run: a damaged image is set aside, and the program starts cold") {
  Fixture fixture;
  fixture.make_image();
  const fs::path image = fixture.images()[0].image;
  fs::resize_file(image, fs::file_size(image) / 2);
  expect_cold(fixture.run_function());
  const auto images = fixture.images();
  const auto aside = std::ranges::find(images, image, &icecore::StoreEntry::image);
  REQUIRE(aside != images.end());
  CHECK(aside->set_aside);
  CHECK(!aside->last_failure.empty());
}

TEST_CASE("run: a process that loses its memory in its first moments is started cold") {
  Fixture fixture;
  const Arguments arguments = {"memory", "16", "notify"};
  const std::string secret = fixture.make_image(arguments);
  const bool fallback = GENERATE(true, false);
  Running running =
      fixture.run_function(arguments, fallback ? Arguments{} : Arguments{"--no-fallback"});
  CHECK(ask_secret(running) == secret);
  fixture.await(running, "\"thaw_us\":");
  const std::vector<pid_t> pagers = pagers_of(running.program());
  REQUIRE(pagers.size() == 2);
  for (const pid_t pager : pagers) ::kill(pager, SIGSTOP);  // so that neither replaces the other
  for (const pid_t pager : pagers) ::kill(pager, SIGKILL);
  if (fallback) {
    CHECK(running.conversation().hear() == "ready");
    CHECK(running.ask("check?") == "ok");
    CHECK(running.ask("secret?") != secret);
    CHECK(running.end() == 0);
    CHECK(running.says("\"fallback\":true"));
  } else {
    CHECK(exit_status(running.tool().wait()) == 125);
  }
  const auto images = fixture.images();
  const auto aside = std::ranges::find(images, true, &icecore::StoreEntry::set_aside);
  REQUIRE(aside != images.end());
  CHECK(aside->last_failure.find("pager") != std::string::npos);
  expect_cold(fixture.run_function({"memory", "16"}));
}

TEST_CASE("run --no-fallback: a damaged image ends it") {
  Fixture fixture;
  fixture.make_image();
  fs::resize_file(fixture.images()[0].image, 5000);
  Running running = fixture.run_function({"notify"}, {"--no-fallback"});
  CHECK(exit_status(running.tool().wait()) == 125);
}

TEST_CASE("run: an image that was removed is none") {
  Fixture fixture;
  fixture.make_image();
  fs::remove(
      fixture.images()[0].image);  // its entry is still there, as between look-up and restore
  expect_cold(fixture.run_function());
}

TEST_CASE("run: a store that cannot be used does not keep the program from running") {
  Fixture fixture;
  const std::string trouble = GENERATE("file", "newer", "foreign");
  INFO(trouble);
  if (trouble == "file") std::ofstream{fixture.store()} << "no folder";
  if (trouble != "file") fs::create_directory(fixture.store());
  if (trouble == "newer") std::ofstream{fixture.store() / "icecore-store"} << "2\n";
  if (trouble == "foreign") std::ofstream{fixture.store() / "letter.txt"} << "dear";
  Running running = fixture.run_function({});
  CHECK(running.conversation().hear() == "ready");
  CHECK(running.ask("ping") == "pong");
  CHECK(running.end() == 0);
  CHECK(running.says("no store"));
}

/// A folder on a file system of its own, of `size`; nothing, and it is said, where that cannot be.
std::unique_ptr<PrivateMounts> mount_memory(const fs::path& folder, const char* size) {
  fs::create_directory(folder);
  try {
    auto mounts = std::make_unique<PrivateMounts>();
    mounts->mount_memory(folder, size);
    return mounts;
  } catch (const std::system_error& error) {
    skip(std::string{"needs a mount namespace: "} + error.what());
    return nullptr;
  }
}

void make_read_only(const fs::path& mount) {
  must(::mount(nullptr, mount.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr), "remount");
}

TEST_CASE("run: a store that is full or read-only does not keep the program from running") {
  Fixture fixture;
  const bool full = GENERATE(true, false);
  const auto mounts = mount_memory(fixture.store(), full ? "64k" : "64m");
  if (!mounts) return;
  icecore::Store::open(fixture.store());
  if (!full) make_read_only(fixture.store());
  Running running = fixture.run_function();
  CHECK(running.conversation().hear() == "ready");
  fixture.await(running, "not snapshotted");
  CHECK(running.ask("ping") == "pong");
  CHECK(running.end() == 0);
  CHECK(running.cold());
}

TEST_CASE("store: what cannot be removed is not said to be") {
  Fixture fixture;
  const auto mounts = mount_memory(fixture.store(), "64m");
  if (!mounts) return;
  fixture.make_image();
  make_read_only(fixture.store());
  for (const Arguments& command :
       {Arguments{"rm", fixture.store(), "key"}, Arguments{"gc", fixture.store(), "--keep", "0"}}) {
    Arguments arguments{"store"};
    arguments.insert(arguments.end(), command.begin(), command.end());
    const Outcome outcome = icecore(arguments);
    INFO(outcome.err);
    CHECK(outcome.status == 1);
    CHECK(outcome.out == "");
    CHECK(outcome.err.find("Read-only file system") != std::string::npos);
  }
  CHECK(fixture.images().size() == 1);
}

TEST_CASE("run: a store without permission does not keep the program from running") {
  if (::geteuid() != 0 || !in_path("setpriv")) return skip("needs root and setpriv");
  Fixture fixture;
  fixture.make_image();
  fixture.prefix = {"setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"};
  must(::chown(fixture.store().c_str(), 65534, 65534), "chown");
  Running running = fixture.run_function({});
  CHECK(running.conversation().hear() == "ready");
  CHECK(running.ask("ping") == "pong");
  CHECK(running.end() == 0);
  CHECK(running.says("Permission denied"));
  CHECK(running.cold());
}

TEST_CASE("run: a store that is deleted while it is used does not matter") {
  Fixture fixture;
  Running running = fixture.run_function({});
  CHECK(running.conversation().hear() == "ready");
  fs::remove_all(fixture.store());
  CHECK(running.ask("notify") == "done");
  CHECK(running.ask("ping") == "pong");
  CHECK(running.end() == 0);
}

TEST_CASE("run: of several at once one makes the image, and none waits") {
  Fixture fixture;
  std::vector<Running> all;
  for (int i = 0; i < 4; ++i) all.push_back(fixture.run_function({}));
  for (Running& running : all) CHECK(running.conversation().hear() == "ready");
  for (Running& running : all) running.conversation().tell("notify");
  for (Running& running : all) CHECK(running.conversation().hear() == "done");
  fixture.await_images(1, all[0]);
  for (Running& running : all) CHECK(running.end() == 0);
}

TEST_CASE("run: who is ready when another has made the image makes none") {
  Fixture fixture;
  Running first = fixture.run_function({}), second = fixture.run_function({}, {"--verbose"});
  for (Running* running : {&first, &second}) CHECK(running->conversation().hear() == "ready");
  CHECK(first.ask("notify") == "done");
  const auto images = fixture.await_images(1, first);
  CHECK(second.ask("notify") == "done");
  fixture.await(second, "somebody else has made an image of this");
  CHECK(second.ask("ping") == "pong");
  for (Running* running : {&first, &second}) CHECK(running->end() == 0);
  REQUIRE(fixture.images().size() == 1);
  CHECK(fixture.images()[0].name == images[0].name);
}

TEST_CASE("run: a hundred restores of one image side by side") {
  Fixture fixture;
  const std::string secret = fixture.make_image();
  constexpr std::size_t kRestores = 100;
  std::vector<Running> all;
  for (std::size_t i = 0; i < kRestores; ++i) all.push_back(fixture.run_function());
  for (Running& running : all) CHECK(ask_secret(running) == secret);
  for (Running& running : all) CHECK(running.ask("ping") == "pong");
  for (Running& running : all) CHECK(running.end() == 0);
  for (Running& running : all) CHECK(running.restored());
  CHECK(fixture.images()[0].restores == kRestores);
}

TEST_CASE("run: killed at any step of a restore it leaves nothing half built") {
  Fixture fixture;
  const std::string secret = fixture.make_image();
  const Arguments command = {ICECORE_TOOL, "run", "--store", fixture.store(),
                             "--key",      "key", "--",      target_path("function"),
                             "notify"};
  const auto start = [&](Conversation& conversation) {
    conversation.tell("exit 0");
    return std::make_unique<Stepper>(command, conversation.streams());
  };
  std::size_t steps = 0;
  {
    Conversation conversation = make_conversation();
    const auto stepper = start(conversation);
    REQUIRE(stepper->finish() == 0);
    steps = stepper->steps();
  }
  constexpr std::size_t kKills = 40;
  OrphanAdopter adopter;
  for (std::size_t step = 1; step < steps; step += std::max<std::size_t>(1, steps / kKills)) {
    Conversation conversation = make_conversation();
    const auto stepper = start(conversation);
    stepper->step(step);
    stepper->kill();
    INFO("step " << step << " of " << steps << ": " << stepper->last_calls());
    REQUIRE(adopter.find_half_built(conversation) == "");
  }
  expect_restored(fixture.run_function(), secret);
}

TEST_CASE("an image of run is restored by anything else as well") {
  Fixture fixture;
  Running cold = fixture.run_function({"notify"}, {"--env", "USER=1"});
  CHECK(cold.conversation().hear() == "ready");
  // No question may be in the image.
  const fs::path image = fixture.await_images(1, cold)[0].image;
  CHECK(cold.ask("invocation?") == "USER=1||");
  CHECK(cold.end() == 0);

  {
    RestoredByTool bare{image};
    std::string answer = bare.ask("invocation?");
    if (answer == "ready") answer = bare.conversation().hear();
    CHECK(answer == "|");  // nothing, and nothing of the first invocation
    bare.conversation().hang_up();
    CHECK(exit_status(bare.tool().wait()) == 0);
  }
  icecore::RestoreOptions options;
  options.invocation = {.variables = {"USER=2"}, .arguments = {"a", "b"}};
  Restored by_library{image, options};
  if (by_library.ask("ping") == "ready") CHECK(by_library.conversation().hear() == "pong");
  CHECK(by_library.ask("invocation?") == "USER=2||a|b|");

  icecore::snapshot(by_library.pid(), fixture.folder / "again", {.fsync = false});
  options.pids = icecore::Pids::in_namespace;
  options.invocation = {.variables = {"USER=3"}};
  Restored again{fixture.folder / "again", options};
  CHECK(again.ask("invocation?") == "USER=3||");
}

TEST_CASE("run: killed at any moment it leaves a store that can be used") {
  Fixture fixture;
  for (int i = 0; i < 12; ++i) {
    // Another command line each time, so that none is restored from what an earlier one left.
    Running running = fixture.run_function({"run", std::to_string(i)});
    CHECK(running.conversation().hear() == "ready");
    running.conversation().tell("notify");
    // At another moment each time; which one does not matter.
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds{i * 3};
    while (std::chrono::steady_clock::now() < until) std::this_thread::yield();
    running.tool().signal(SIGKILL);
    running.tool().wait();
    running.conversation().hear();         // whether or not there was still somebody to be told
    CHECK(running.ask("ping") == "pong");  // the program lives on
    running.conversation().hang_up();
  }
  icecore::Store::open(fixture.store()).collect({});
  CHECK(icecore({"store", "verify", fixture.store()}).status == 0);
}

TEST_CASE("run -o keeps one image in a file") {
  Fixture fixture;
  const fs::path image = fixture.folder / "image";
  const auto run = [&](const std::string& name) {
    return Running{fixture.folder / name, {"-o", image, "--", target_path("function"), "notify"}};
  };
  std::string secret;
  {
    Running cold = run("first");
    REQUIRE(cold.conversation().hear() == "ready");
    secret = cold.ask("secret?");
    fixture.await(cold, "\"snapshot\":");
    CHECK(cold.end() == 0);
  }
  expect_restored(run("second"), secret);
}

TEST_CASE("run -o: a file that is no image is not replaced, nor is one that was to be") {
  Fixture fixture;
  const fs::path file = fixture.folder / "file";
  const auto run = [&](const Arguments& program) {
    Arguments arguments{"-o", file, "--"};
    arguments.insert(arguments.end(), program.begin(), program.end());
    return Running{fixture.folder / "errors", std::move(arguments)};
  };
  const auto function = target_path("function");
  std::ofstream{file} << "precious";
  {
    Running cold = run({function, "notify"});
    REQUIRE(cold.conversation().hear() == "ready");
    fixture.await(cold, "and no image of icecore");
    CHECK(cold.end() == 0);
  }
  CHECK(contents(file) == "precious");
  CHECK(std::distance(fs::directory_iterator{fixture.folder.path()}, {}) == 2);  // and errors

  fs::remove(file);
  std::string secret;
  {
    Running cold = run({function, "notify"});
    REQUIRE(cold.conversation().hear() == "ready");
    secret = cold.ask("secret?");
    fixture.await(cold, "\"snapshot\":");
    CHECK(cold.end() == 0);
  }
  {
    Running refused = run({function, "packets", "notify"});
    REQUIRE(refused.conversation().hear() == "ready");
    fixture.await(refused, "not snapshotted");
    CHECK(refused.end() == 0);
  }
  expect_restored(run({function, "notify"}), secret);
}

TEST_CASE("run: what cannot be started has the status that a shell gives it") {
  Fixture fixture;
  for (const auto& [program, status] : {std::pair{"/does/not/exist", 127}, {"/etc/passwd", 126}}) {
    Running running = fixture.run({program});
    CHECK(exit_status(running.tool().wait()) == status);
  }
}

TEST_CASE("run: a script without first line is one for the shell") {
  Fixture fixture;
  const fs::path script = fixture.folder / "script";
  std::ofstream{script} << "read line; echo \"$0 $1 $line\"\n";
  fs::permissions(script, fs::perms::owner_all);
  Running running = fixture.run({script, "argument"});
  CHECK(running.ask("input") == script.native() + " argument input");
  CHECK(running.end() == 0);
}

TEST_CASE("run: wrong usage is 2") {
  for (const Arguments& forgotten :
       {Arguments{"run", "-o", "x", "true", "-c"}, Arguments{"run", "-o", "x", "--"},
        Arguments{"run", "-o", "x", "--", "--", "argument"}}) {
    const Outcome outcome = icecore(forgotten);
    CHECK(outcome.status == 2);
    CHECK(outcome.err.find("command behind --") != std::string::npos);
  }
  CHECK(icecore({"run"}).status == 2);
  CHECK(icecore({"run", "--", "true"}).status == 2);
  CHECK(icecore({"run", "--store", "/tmp/x", "--", "true"}).status == 2);
  CHECK(icecore({"run", "-o", "x", "--ready", "port:0", "--", "true"}).status == 2);
  CHECK(icecore({"run", "-o", "x", "--ready", "log:(", "--", "true"})
            .err.find("no regular expression") != std::string::npos);
  CHECK(icecore({"run", "-o", "x", "--cpu-baseline", "v3", "--", "true"}).status == 2);
  CHECK(icecore({"run", "-o", "x", "--depends", "", "--", "true"}).status == 2);
  CHECK(icecore({"store", "gc", "/tmp", "--keep", "-1"}).status == 2);
}

TEST_CASE("run: a folder that is gone does not keep the program from running") {
  const TemporaryFolder folder;
  const std::string gone = folder / "gone";
  const std::string image = GENERATE("image", "/dev/null/image");
  const Outcome outcome =
      run({"sh", "-c",
           "mkdir \"$1\" && cd \"$1\" && rmdir \"$1\" && exec \"$2\" run -o \"$3\" -- echo runs",
           "sh", gone, ICECORE_TOOL, image});
  INFO(outcome.err);
  CHECK(outcome.status == 0);
  CHECK(outcome.out == "runs\n");
  CHECK(outcome.err.find("warning") != std::string::npos);
}

TEST_CASE("run: the CPU baseline reaches the program, and the image") {
  Fixture fixture;
  Running cold = fixture.run_function({"notify"}, {"--cpu-baseline", "x86-64-v2"});
  CHECK(cold.conversation().hear() == "ready");
  CHECK(cold.ask("variable? ATEN_CPU_CAPABILITY") == "default");
  const auto images = fixture.await_images(1, cold);
  CHECK(cold.end() == 0);
  CHECK(icecore::Image::open(images[0].image).info().cpu_baseline == "x86-64-v2");
}

TEST_CASE("store: what it holds is listed, shown, verified and removed") {
  Fixture fixture;
  fixture.make_image();
  const Outcome listed = icecore({"store", "ls", fixture.store()});
  CHECK(listed.status == 0);
  CHECK(listed.out.find("key") != std::string::npos);
  CHECK(icecore({"store", "show", fixture.store(), "key", "--json"})
            .out.find("\"dependencies\":[{") != std::string::npos);
  CHECK(icecore({"store", "show", fixture.store(), "other"}).status == 1);
  CHECK(icecore({"store", "verify", fixture.store()}).status == 0);
  {
    std::fstream image{fixture.images()[0].image, std::ios::in | std::ios::out | std::ios::binary};
    image.seekp(-5000, std::ios::end);
    image.put('\x55').put('\xaa').put('\x55');
  }
  CHECK(icecore({"store", "verify", fixture.store()}).status == 1);
  CHECK(fixture.images()[0].set_aside);
  CHECK(icecore({"store", "gc", fixture.store(), "--keep", "3"}).status == 0);
  CHECK(fixture.images().empty());
  CHECK(icecore({"store", "rm", fixture.store(), "key"}).status == 1);
}

TEST_CASE("store: keys are shown such that they do nothing to a terminal") {
  Fixture fixture;
  const std::string key = "a\nb\x1b[2Jc";
  Running running{fixture.folder / "errors",
                  {"--store", fixture.store(), "--key", key, "--ready", "delay:0", "--", "sh", "-c",
                   "read line; true"}};
  fixture.await(running, "\"snapshot\":");
  CHECK(running.end() == 0);
  const std::string shown = icecore({"store", "ls", fixture.store()}).out;
  CHECK(shown.find(R"(  a\x0ab\x1b[2Jc)"
                   "\n") != std::string::npos);
  CHECK(icecore({"store", "show", fixture.store(), key}).status == 0);
}

TEST_CASE("store: looking at one that is not there does not make it") {
  Fixture fixture;
  const Outcome listed = icecore({"store", "ls", fixture.store()});
  CHECK(listed.status == 1);
  CHECK(listed.err.find("is no store") != std::string::npos);
  CHECK(listed.err.find("icecore run --store") != std::string::npos);  // what to do
  CHECK(!fs::exists(fixture.store()));
}

TEST_CASE("check --host decides from two files") {
  Fixture fixture;
  fixture.make_image();
  const std::string image = fixture.images()[0].image;
  const fs::path host = fixture.folder / "host.json";
  const std::string here = icecore({"host"}).out;
  std::ofstream{host} << here;
  CHECK(icecore({"check", image, "--host", host}).status == 0);
  CHECK(icecore({"fleet", host, host}).out.find("1 snapshot for 2 machines") != std::string::npos);
  std::ofstream{host} << "{}";
  const Outcome nothing = icecore({"check", image, "--host", host});
  CHECK(nothing.status == 1);
  CHECK(nothing.err.find("write one on that machine with `icecore host`") != std::string::npos);
}

}  // namespace test::run_test
