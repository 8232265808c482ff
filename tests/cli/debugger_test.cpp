// SPDX-License-Identifier: Apache-2.0
//
// An image is a core file: gdb and readelf read it as they read any other.
#include <catch2/catch.hpp>
#include <icecore/image.hpp>
#include <icecore/snapshot.hpp>

#include <map>
#include <regex>
#include <sstream>

#include "support/run.hpp"
#include "support/skip.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::debugger_test {

namespace fs = std::filesystem;

/// The names of the functions on each thread's stack, innermost first, by thread id.
using Stacks = std::map<long, std::vector<std::string>>;

Stacks stacks_in(const std::string& gdb_output) {
  static const std::regex kThread{R"(^Thread \d+ \(.*LWP (\d+)\).*)"};
  static const std::regex kFrame{R"(^#\d+ +(?:0x[0-9a-f]+ in )?([^(]+) \(.*)"};
  Stacks stacks;
  std::vector<std::string>* stack = nullptr;
  std::istringstream lines{gdb_output};
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (std::regex_match(line, match, kThread))
      stack = &stacks[std::stol(match[1])];
    else if (stack != nullptr && std::regex_match(line, match, kFrame))
      stack->push_back(match[1]);
  }
  return stacks;
}

Outcome gdb(const Arguments& rest) {
  Arguments command = {"gdb", "-nx", "-batch", "-ex", "set pagination off"};
  command.insert(command.end(), rest.begin(), rest.end());
  return run(command);
}

Stacks stacks_of_live(pid_t pid) {
  return stacks_in(gdb({"-ex", "thread apply all bt", "-p", std::to_string(pid)}).out);
}

Stacks stacks_of_file(const std::string& program, const fs::path& core) {
  return stacks_in(gdb({"-ex", "thread apply all bt", program, core}).out);
}

void expect_prints_global(const fs::path& core) {
  const Outcome outcome = gdb({"-ex", "print known_global", target_path("tiny"), core});
  INFO(outcome.out << outcome.err);
  CHECK_THAT(outcome.out, Catch::Contains("$1 = 462"));
}

TEST_CASE("gdb shows the stacks in an image that it shows of the live process") {
  if (!in_path("gdb")) return skip("no gdb here");
  TemporaryFolder folder;
  Target target{"many_threads", {"10"}};
  const Stacks live = stacks_of_live(target.pid());
  REQUIRE(live.size() == 11);
  REQUIRE(live.begin()->second.size() >= 3);

  icecore::snapshot(target.pid(), folder / "raw", {.fsync = false});
  CHECK(stacks_of_file(target_path("many_threads"), folder / "raw") == live);

  icecore::snapshot(target.pid(), folder / "zstd",
                    {.encoding = icecore::Encoding::zstd, .fsync = false});
  const Outcome made = icecore({"core", folder / "zstd", "-o", folder / "core"});
  INFO(made.err);
  REQUIRE(made.status == 0);
  CHECK(stacks_of_file(target_path("many_threads"), folder / "core") == live);
  CHECK(target.running());
}

TEST_CASE("gdb prints a variable from an image") {
  if (!in_path("gdb")) return skip("no gdb here");
  TemporaryFolder folder;
  Target target{"tiny"};
  icecore::snapshot(target.pid(), folder / "raw", {.fsync = false});
  expect_prints_global(folder / "raw");
  icecore::snapshot(target.pid(), folder / "zstd",
                    {.encoding = icecore::Encoding::zstd, .fsync = false});
  REQUIRE(icecore({"core", folder / "zstd", "-o", folder / "core"}).status == 0);
  expect_prints_global(folder / "core");
}

std::size_t count(const std::string& text, const std::string& word) {
  std::size_t found = 0;
  for (std::size_t at = 0; (at = text.find(word, at)) != std::string::npos; at += word.size())
    ++found;
  return found;
}

/// readelf of binutils 2.40, as in Debian 12, cannot decode this note; that of elfutils can.
void expect_mapped_files(std::string notes, const fs::path& image) {
  if (notes.find("Cannot decode 64-bit note") != std::string::npos) {
    if (!in_path("eu-readelf")) return skip("this readelf cannot decode NT_FILE; no eu-readelf");
    notes = run({"eu-readelf", "-n", image}).out;
  }
  CHECK_THAT(notes, Catch::Contains(target_path("many_threads")) && Catch::Contains("libc.so.6"));
}

TEST_CASE("readelf lists the threads and mapped files of an image") {
  if (!in_path("readelf")) return skip("no readelf here");
  const auto encoding = GENERATE(icecore::Encoding::raw, icecore::Encoding::zstd);
  TemporaryFolder folder;
  Target target{"many_threads", {"10"}};
  icecore::snapshot(target.pid(), folder / "image", {.encoding = encoding, .fsync = false});
  const Outcome notes = run({"readelf", "-nW", folder / "image"});
  INFO(notes.err);
  CHECK(notes.status == 0);
  CHECK(notes.err == "");
  CHECK(count(notes.out, "NT_PRSTATUS") == 11);
  CHECK(count(notes.out, "NT_PRPSINFO") == 1);
  CHECK(count(notes.out, "NT_AUXV") == 1);
  expect_mapped_files(notes.out, folder / "image");
  const Outcome header = run({"readelf", "-hlW", folder / "image"});
  CHECK(header.err == "");
  CHECK_THAT(header.out, Catch::Contains("CORE (Core file)"));
  CHECK(target.running());
}

}  // namespace test::debugger_test
