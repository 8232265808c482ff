// SPDX-License-Identifier: Apache-2.0
//
// Images that are damaged, foreign or do not fit this machine: refused with exit status 125, before
// anything runs; never a crash, never another process than the one that was snapshotted.
#include <catch2/catch.hpp>
#include <icecore/snapshot.hpp>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>

#include <fstream>
#include <iterator>
#include <random>

#include "support/restored.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::images_test {

namespace fs = std::filesystem;

std::string read_all(const fs::path& path) {
  std::ifstream file{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{file}, {}};
}

void write_all(const fs::path& path, const std::string& bytes) {
  std::ofstream{path, std::ios::binary | std::ios::trunc} << bytes;
}

/// The image of a small target that is gone, and what it knew.
class Fixture {
 public:
  explicit Fixture(icecore::Encoding encoding = icecore::Encoding::raw) {
    Target target{"private_anonymous"};
    secret_ = target.ask("secret?");
    icecore::snapshot(target.pid(), image(), {.encoding = encoding, .kill = true, .fsync = false});
    target.process().await_end();
    bytes_ = read_all(image());
  }

  fs::path image() const { return folder_ / "image"; }
  fs::path damaged() const { return folder_ / "damaged"; }
  const std::string& bytes() const { return bytes_; }
  const TemporaryFolder& folder() const { return folder_; }

  /// Whether a restore of the damaged file fails as it must, or else brings the same process.
  void expect_refused_or_same() const {
    const Arguments command = {ICECORE_TOOL, "restore", damaged(), "--pids", "same"};
    Conversation conversation = make_conversation();
    Process tool = Process::start(command, conversation.streams());
    conversation.tell("secret?");  // before it can end: it need not read this
    conversation.tell("check?");
    conversation.begin();
    conversation.hang_up();
    const int status = exit_status(tool.wait());
    if (status == 125) return;
    CHECK(status == 0);
    CHECK(conversation.hear() == secret_);
    CHECK(conversation.hear() == "ok");
  }

  void expect_refused(const std::string& word) const {
    for (const char* command : {"restore", "verify", "inspect", "check"}) {
      const Outcome outcome = icecore({command, damaged()});
      INFO(command << ": " << outcome.status << ": " << outcome.err);
      CHECK(outcome.status == (std::string{command} == "restore" ? 125 : 1));
      CHECK_THAT(outcome.err, Catch::StartsWith("icecore: ") && Catch::Contains(word));
    }
  }

 private:
  TemporaryFolder folder_;
  std::string secret_, bytes_;
};

TEST_CASE("a file that is no image is refused") {
  Fixture fixture;
  write_all(fixture.damaged(), "");
  fixture.expect_refused("image");
  write_all(fixture.damaged(), "hello, world\n");
  fixture.expect_refused("image");
  write_all(fixture.damaged(), std::string(100'000, '\0'));
  fixture.expect_refused("image");
  write_all(fixture.damaged(), read_all("/proc/self/exe").substr(0, 1 << 20));  // an ELF file
  fixture.expect_refused("image");
  fs::remove(fixture.damaged());
  fixture.expect_refused("No such file");
  fs::create_directory(fixture.damaged());
  fixture.expect_refused(fixture.damaged());
}

TEST_CASE("a truncated image is refused") {
  const auto encoding = GENERATE(icecore::Encoding::raw, icecore::Encoding::zstd);
  Fixture fixture{encoding};
  for (std::size_t sixteenth = 1; sixteenth < 16; ++sixteenth) {
    INFO(sixteenth << "/16");
    write_all(fixture.damaged(),
              fixture.bytes().substr(0, fixture.bytes().size() * sixteenth / 16));
    fixture.expect_refused("");
  }
  write_all(fixture.damaged(), fixture.bytes().substr(0, fixture.bytes().size() - 1));
  fixture.expect_refused("");
}

TEST_CASE("an image of a newer major version is refused") {
  Fixture fixture;
  constexpr std::size_t kMajorVersion = 72;  // docs/image-format.md; a little-endian uint16
  std::string bytes = fixture.bytes();
  REQUIRE(bytes[kMajorVersion] == 1);
  bytes[kMajorVersion] = 2;
  write_all(fixture.damaged(), bytes);
  fixture.expect_refused("version 2");
}

/// Where a byte is flipped: near an end of the file, where headers, notes and the page map lie, or
/// anywhere.
std::vector<std::size_t> places_in(std::size_t size) {
  std::mt19937_64 random{Catch::rngSeed() != 0 ? Catch::rngSeed() : 1};
  std::vector<std::size_t> places;
  for (std::size_t place = 0; place < 64; place += 4) places.push_back(place);
  for (int count = 0; count < 30; ++count)
    places.push_back(random() % std::min<std::size_t>(size, 8192));
  for (int count = 0; count < 30; ++count)
    places.push_back(size - 1 - random() % std::min<std::size_t>(size, 16384));
  for (int count = 0; count < 40; ++count) places.push_back(random() % size);
  return places;
}

TEST_CASE("a flipped byte never restores another process") {
  const auto encoding = GENERATE(icecore::Encoding::raw, icecore::Encoding::zstd);
  Fixture fixture{encoding};
  for (const std::size_t place : places_in(fixture.bytes().size())) {
    INFO("byte " << place << " of " << fixture.bytes().size());
    std::string bytes = fixture.bytes();
    bytes[place] = static_cast<char>(bytes[place] ^ 0x41);
    write_all(fixture.damaged(), bytes);
    fixture.expect_refused_or_same();
  }
}

TEST_CASE("verify finds a flipped byte in any page") {
  const auto encoding = GENERATE(icecore::Encoding::raw, icecore::Encoding::zstd);
  Fixture fixture{encoding};
  CHECK(icecore({"verify", fixture.image()}).status == 0);
  std::string bytes = fixture.bytes();
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write_all(fixture.damaged(), bytes);
  const Outcome outcome = icecore({"verify", fixture.damaged()});
  INFO(outcome.err);
  CHECK(outcome.status == 1);
}

TEST_CASE("an image whose file has changed is refused and the file is named") {
  TemporaryFolder folder;
  Target target{"private_file", {folder.path()}};
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  std::ofstream{folder / "private_file", std::ios::app} << "more";
  for (const char* command : {"restore", "check"}) {
    const Outcome outcome = icecore({command, folder / "image"});
    INFO(outcome.err << outcome.out);
    CHECK(outcome.status == (std::string{command} == "restore" ? 125 : 1));
    CHECK_THAT(outcome.err + outcome.out, Catch::Contains(folder / "private_file"));
  }
  fs::remove(folder / "private_file");
  const Outcome outcome = icecore({"restore", folder / "image"});
  CHECK(outcome.status == 125);
  CHECK_THAT(outcome.err, Catch::Contains(folder / "private_file"));
}

TEST_CASE("a file that is read through one descriptor and written through another is named") {
  TemporaryFolder folder;
  const fs::path file = folder / "file", image = folder / "image";
  std::ofstream{file} << "before";
  Target target = Target::of_command(
      {"sh", "-c", "exec 3>>\"$0\" 4<\"$0\"; exec \"$1\"", file, target_path("tiny")});
  icecore::snapshot(target.pid(), image, {.kill = true, .fsync = false});
  target.process().await_end();
  std::ofstream{file, std::ios::app} << "after";
  const Outcome refused = icecore({"restore", image});
  CHECK(refused.status == 125);
  CHECK_THAT(refused.err, Catch::Contains(file.string()));
}

TEST_CASE("a program whose file is as old as another, but has its build id, is restored") {
  TemporaryFolder folder;
  const fs::path program = folder / "tiny", image = folder / "image";
  fs::copy_file(target_path("tiny"), program);
  Target target = Target::of_command({program});
  icecore::snapshot(target.pid(), image, {.kill = true, .fsync = false});
  target.process().await_end();
  fs::last_write_time(program, fs::last_write_time(program) + std::chrono::hours{1});
  Restored restored{image};
  CHECK(restored.running());
}

TEST_CASE("a pid in use is refused when the same pids are wanted") {
  TemporaryFolder folder;
  Target target{"tiny"};
  icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
  const Outcome outcome = icecore({"restore", folder / "image", "--pids", "same"});
  INFO(outcome.err);
  CHECK(outcome.status == 125);
  CHECK_THAT(outcome.err, Catch::Contains(std::to_string(target.pid())));
  CHECK(target.running());
}

TEST_CASE("one image is restored several times at once") {
  TemporaryFolder folder;
  Target target{"many_threads", {"20"}};
  const std::string secret = target.ask("secret?");
  icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
  RestoredByTool first{folder / "image"}, second{folder / "image"};
  Restored third{folder / "image"};
  CHECK(first.ask("secret?") == secret);
  CHECK(second.ask("secret?") == secret);
  CHECK(third.ask("secret?") == secret);
  CHECK(first.ask("check?") == "ok");
  CHECK(second.ask("check?") == "ok");
  CHECK(third.ask("check?") == "ok");
  CHECK(target.running());
}

TEST_CASE("an image is readable by its owner only") {
  Fixture fixture;
  struct stat status {};
  REQUIRE(::stat(fixture.image().c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0600);
}

/// Waits until the only thread of a process sleeps in read(2).
void await_reading(pid_t pid) {
  const Deadline deadline{kPatience};
  std::string call;
  do {
    if (deadline.passed()) throw std::runtime_error{"it does not read: " + call};
    std::getline(std::ifstream{"/proc/" + std::to_string(pid) + "/syscall"}, call);
  } while (!call.starts_with("0 0x0 "));
}

// Less what the clocks said, which is in the metadata behind the pages.
TEST_CASE("the same state gives the same bytes") {
  TemporaryFolder folder;
  Target target{"private_anonymous"};
  // The kernel writes the number of the CPU into the memory of a program (rseq): only one is left.
  ::cpu_set_t cpus;
  must(::sched_getaffinity(0, sizeof cpus, &cpus), "sched_getaffinity");
  int cpu = 0;
  while (!CPU_ISSET(cpu, &cpus)) ++cpu;
  CPU_ZERO(&cpus);
  CPU_SET(cpu, &cpus);
  must(::sched_setaffinity(target.pid(), sizeof cpus, &cpus), "sched_setaffinity");
  std::size_t page_bytes = 0;
  for (const char* name : {"before", "first", "second"}) {
    await_reading(target.pid());  // else it may still be on its way there
    const auto report = icecore::snapshot(target.pid(), folder / name, {.fsync = false});
    page_bytes = report.stored_pages * 4096;
  }
  const std::string first = read_all(folder / "first"), second = read_all(folder / "second");
  CHECK(first.size() == second.size());
  REQUIRE(first.size() > 4096 + page_bytes);
  CHECK((first.substr(4096, page_bytes) == second.substr(4096, page_bytes)));
  CHECK(target.running());
}

TEST_CASE("a restore gives no capability that its caller has not") {
  if (::geteuid() != 0 || !in_path("setpriv")) return skip("needs root and setpriv");
  const Fixture fixture;
  const Arguments with_less = {"setpriv", "--bounding-set=-net_raw", "--inh-caps=-all",
                               ICECORE_TOOL};
  Arguments command = with_less;
  for (const std::string& word : {std::string{"restore"}, fixture.image().string()})
    command.push_back(word);
  const Outcome outcome = run(command);
  INFO(outcome.err);
  CHECK(outcome.status == 125);
  CHECK_THAT(outcome.err, Catch::Contains("CAP_NET_RAW") && Catch::Contains("capabilities"));
  CHECK_THAT(outcome.err, !Catch::Contains("CAP_KILL"));
  RestoredByTool restored{fixture.image()};  // with all that it takes
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("check tells of clocks that have to be set forward") {
  for (const bool ahead : {false, true}) {
    TemporaryFolder folder;
    try {
      Target target{"clocks", ahead ? Arguments{"ahead"} : Arguments{}};
      icecore::snapshot(target.pid(), folder / "image", {.fsync = false});
    } catch (const NotHere& reason) {
      return skip(reason.what());
    }
    const Outcome outcome = icecore({"check", folder / "image", "--pids", "namespace"});
    INFO(outcome.out);
    CHECK(outcome.status == 0);
    CHECK((outcome.out.find("time namespace") != std::string::npos) == ahead);
    CHECK((outcome.out.find("forward by 86") != std::string::npos) == ahead);
  }
}

}  // namespace test::images_test
