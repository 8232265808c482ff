// SPDX-License-Identifier: Apache-2.0
//
// An image of another kernel: its vdso is not this machine's, and the process has kept addresses in
// it.  The other vdso is ours with other bytes where no function is.
#include <catch2/catch.hpp>
#include <icecore/error.hpp>
#include <icecore/image.hpp>
#include <icecore/snapshot.hpp>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>

#include "image/patch_image.hpp"
#include "image/vdso_text.hpp"
#include "support/restored.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"
#include "sys/proc_maps.hpp"

namespace test::vdso_test {

using Text = std::vector<std::uint8_t>;

Text vdso_here() {
  for (const auto& vma : icecore::sys::read_maps(::getpid())) {
    if (vma.name != "[vdso]") continue;
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(vma.start);
    return {bytes, bytes + vma.size()};
  }
  return {};
}

std::vector<std::byte> read_image(const std::filesystem::path& path) {
  std::ifstream file{path, std::ios::binary};
  const std::string text{std::istreambuf_iterator<char>{file}, {}};
  std::vector<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

/// Changes what the image's manifest says of its machine's vdso.
template <class Change>
void change_vdso(const std::filesystem::path& path, Change change) {
  auto image = read_image(path);
  const Text here = vdso_here();
  const auto wanted = std::as_bytes(std::span{here});
  const auto manifest = icecore::test::find_note(image, icecore::format::kManifestNote);
  const auto found = std::search(manifest.begin(), manifest.end(), wanted.begin(), wanted.end());
  REQUIRE(found != manifest.end());
  change(std::span{reinterpret_cast<std::uint8_t*>(&*found), here.size()});
  icecore::test::fix_digests(image);
  std::ofstream{path, std::ios::binary | std::ios::trunc}.write(
      reinterpret_cast<const char*>(image.data()), static_cast<std::streamsize>(image.size()));
}

/// The unused end, far from every function.
void change_end(std::span<std::uint8_t> text) { text.back() ^= 1; }

void rename_function(std::span<std::uint8_t> text, std::string_view from, std::string_view to) {
  const auto found = std::search(text.begin(), text.end(), from.begin(), from.end());
  REQUIRE(found != text.end());
  std::copy(to.begin(), to.end(), found);
}

bool has_two_vdsos(pid_t pid, std::uint64_t known) {
  const auto mappings = icecore::sys::read_maps(pid);
  const auto at = [&](const auto& vma) { return vma.start == known && vma.name.empty(); };
  const auto own = [&](const auto& vma) { return vma.name == "[vdso]" && vma.start != known; };
  return std::ranges::any_of(mappings, at) && std::ranges::any_of(mappings, own);
}

std::uint64_t vdso_of(pid_t pid) {
  for (const auto& vma : icecore::sys::read_maps(pid))
    if (vma.name == "[vdso]") return vma.start;
  return 0;
}

TEST_CASE("under another kernel the calls of the old vdso lead to the new one") {
  TemporaryFolder folder;
  Target target{"vdso"};
  const std::uint64_t known = vdso_of(target.pid());
  REQUIRE(known != 0);
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  change_vdso(folder / "image", change_end);
  for (const auto& finding : icecore::Image::open(folder / "image").check()) {
    INFO(finding.subject << ": " << finding.reason);
    CHECK(finding.ok);
    if (finding.subject.starts_with("kernel")) CHECK_THAT(finding.subject, Catch::Contains("vdso"));
  }

  Restored restored{folder / "image"};
  CHECK(has_two_vdsos(restored.pid(), known));
  CHECK(restored.ask("check?") == "ok");

  // And again, as any process of this machine.
  icecore::snapshot(restored.pid(), folder / "again", {.kill = true, .fsync = false});
  restored.await_end();
  Restored again{folder / "again"};
  CHECK(has_two_vdsos(again.pid(), known));
  CHECK(again.ask("check?") == "ok");
}

TEST_CASE("a vdso with a function that nothing stands in for is refused") {
  TemporaryFolder folder;
  Target target{"tiny"};
  icecore::snapshot(target.pid(), folder / "image", {.kill = true, .fsync = false});
  target.process().await_end();
  change_vdso(folder / "image",
              [](auto text) { rename_function(text, "__vdso_getcpu", "__vdso_riddle"); });
  try {
    const Restored restored{folder / "image"};
    FAIL_CHECK("was restored");
  } catch (const icecore::Error& error) {
    CHECK(error.code() == icecore::Errc::incompatible);
    CHECK_THAT(error.what(), Catch::Contains("__vdso_riddle"));
  }
}

TEST_CASE("every function of a vdso is replaced by a jump or by its system call") {
  const Text here = vdso_here();
  const auto functions = icecore::vdso_functions(here);
  REQUIRE(functions.contains("__vdso_clock_gettime"));
  Text less = here;
  rename_function(less, "__vdso_clock_gettime", "__vdso_clock_rettime");
  CHECK(icecore::stranded_functions(icecore::function_names(functions),
                                    icecore::function_names(icecore::vdso_functions(less)))
            .empty());

  const std::uint64_t address = 0x7000'0000'0000;
  const Text text = icecore::lead_to(here, less, address);
  for (const auto& [name, offset] : functions) {
    INFO(name);
    std::uint64_t target = 0;
    std::memcpy(&target, &text[offset + 2], sizeof target);
    std::uint32_t number = 0;
    std::memcpy(&number, &text[offset + 1], sizeof number);
    if (name == "__vdso_clock_gettime")
      CHECK((text[offset] == 0xb8 && number == SYS_clock_gettime));
    else
      CHECK((text[offset] == 0x49 && target == address + offset));
  }
}

TEST_CASE("what is no vdso has no functions") {
  Text text = vdso_here();
  CHECK(icecore::vdso_functions({}).empty());
  CHECK(icecore::vdso_functions(std::span{text}.first(100)).empty());
  for (std::size_t at = 0; at < text.size(); at += 7) {
    Text damaged = text;
    damaged[at] ^= 0xff;
    for (const auto& [name, offset] : icecore::vdso_functions(damaged))
      CHECK(offset <= damaged.size() - 13);
  }
  text[0] = 0;
  CHECK(icecore::vdso_functions(text).empty());
}

}  // namespace test::vdso_test
