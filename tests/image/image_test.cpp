// SPDX-License-Identifier: Apache-2.0
//
// The public view of an image.
#include "icecore/image.hpp"

#include <catch2/catch.hpp>
#include <sys/stat.h>

#include "image/failure.hpp"
#include "image/format.hpp"
#include "image/sample_image.hpp"

namespace icecore::test::image_test {

struct Files {
  TemporaryFolder folder;
  std::filesystem::path image = folder.path() / "image";
  std::filesystem::path core = folder.path() / "core";
};

/// Twelve MiB of heap, so that verification has more to do than one thread takes at once.
struct LargeSample {
  LargeSample() {
    auto& mappings = manifest.process->address_space->mappings;
    mappings[2] = anonymous_mapping(kHeap, kHeap + kPages * kPageSize, 0);
    memory.add(kHeap, random_pages(kPages, 5));
  }

  static constexpr std::uint64_t kPages = 3072;
  state::ManifestT manifest = sample_manifest();
  Memory memory;
};

void flip_page_byte(const std::filesystem::path& image, std::uint64_t page) {
  auto bytes = read_file(image);
  bytes[format::kDataOffset + page * kPageSize + 100] ^= std::byte{1};
  write_file(image, bytes);
}

TEST_CASE("an image tells what it holds", "[image]") {
  const Encoding encoding = GENERATE(Encoding::raw, Encoding::zstd);
  const Files files;
  write_image(files.image, sample_manifest(), sample_memory(), encoding);
  const ImageInfo info = Image::open(files.image).info();

  CHECK(info.major_version == 1);
  CHECK(info.minor_version == 0);
  CHECK(info.encoding == encoding);
  CHECK(info.image_bytes == std::filesystem::file_size(files.image));
  CHECK(info.stored_pages == 4);
  CHECK(info.pid == 4711);
  CHECK(info.name == "sample");
  CHECK(info.executable == "/usr/bin/sample");
  CHECK(info.arguments == std::vector<std::string>{"sample", "--go"});
  CHECK(info.working_directory == "/home");
  CHECK(info.kernel_release == "6.18.0");
  REQUIRE(info.threads.size() == 2);
  CHECK(info.threads[1].tid == 4712);
  CHECK(info.threads[1].name == "worker");
  CHECK(info.threads[1].blocked_in == "futex");
  REQUIRE(info.mappings.size() == 6);
  CHECK(info.mappings[0].protection == "r-xp");
  CHECK(info.mappings[0].name == "/usr/bin/sample");
  CHECK(info.mappings[2].name == "[heap]");
  CHECK(info.mappings[2].stored_bytes == 3 * kPageSize);
  CHECK(info.mappings[3].protection == "rw-s");
  CHECK(info.mappings[5].stored_bytes == kPageSize);
  REQUIRE(info.descriptors.size() == 7);
  const auto described = [&](std::size_t i) {
    return info.descriptors[i].kind + ": " + info.descriptors[i].detail;
  };
  CHECK(described(0) == "external: terminal /dev/pts/0");
  CHECK(described(1) == "file: /usr/bin/sample");
  CHECK(described(2) == "directory: /tmp");
  CHECK(described(3) == "device: /dev/null");
  CHECK(described(4) == "pipe: read end of pipe 0");
  CHECK(described(5) == "pipe: write end of pipe 0");
  CHECK(described(6) == "eventfd: count 0");
  REQUIRE(info.files.size() == 1);
  CHECK(info.files[0].build_id == "cafe");
}

TEST_CASE("threads in user code and in rare system calls are told apart", "[image]") {
  state::ManifestT manifest = sample_manifest();
  const auto set_register = [&](std::size_t thread, std::size_t index, std::int64_t value) {
    std::memcpy(&manifest.process->threads[thread]->registers[index * 8], &value, 8);
  };
  set_register(0, 15, -1);    // orig_rax: in no system call
  set_register(1, 15, 9999);  // in one that nobody has heard of
  const Files files;
  write_image(files.image, manifest, sample_memory(), Encoding::raw);
  const ImageInfo info = Image::open(files.image).info();
  CHECK(info.threads[0].blocked_in.empty());
  CHECK(info.threads[1].blocked_in == "syscall 9999");
}

TEST_CASE("arguments across pages, and in pages that are not stored", "[image]") {
  state::ManifestT manifest = sample_manifest();
  state::AddressSpaceT& space = *manifest.process->address_space;
  space.arg_start = kHeap + 3 * kPageSize - 2;  // two bytes of text pages, then nothing
  space.arg_end = kHeap + 3 * kPageSize + 2;
  space.env_start = space.env_end = space.arg_end;
  const Files files;
  write_image(files.image, manifest, sample_memory(), Encoding::raw);
  const auto arguments = Image::open(files.image).info().arguments;
  REQUIRE(arguments.size() == 2);
  CHECK(arguments[0].size() == 2);
  CHECK(arguments[1].empty());
}

TEST_CASE("what cannot be opened is refused by name", "[image]") {
  const Files files;
  const auto failure_at = [](const std::filesystem::path& path) {
    const auto failure = failure_of([&] { Image::open(path); });
    REQUIRE(failure);
    CHECK_THAT(failure->what(), Catch::Matchers::Contains(path.string()));
    return *failure;
  };
  CHECK(failure_at(files.image).sys_errno() == ENOENT);
  CHECK(failure_at(files.folder.path()).sys_errno() == EISDIR);
  CHECK(failure_at("/dev/null").code() == Errc::io);
  REQUIRE(::mkfifo(files.core.c_str(), 0600) == 0);
  CHECK(failure_at(files.core).code() == Errc::io);
  write_file(files.image, {});
  const Error empty = failure_at(files.image);
  CHECK(empty.code() == Errc::corrupt_image);
  CHECK_THAT(empty.what(), Catch::Matchers::EndsWith("not an icecore image"));
}

TEST_CASE("an open image outlives its name", "[image]") {
  const Files files;
  write_image(files.image, sample_manifest(), sample_memory(), Encoding::raw);
  const Image image = Image::open(files.image);
  std::filesystem::remove(files.image);
  const Image copy = image;
  CHECK(copy.verify() == 4);
}

TEST_CASE("verification reads every page and reports how far it is", "[image]") {
  const LargeSample sample;
  const Files files;
  write_image(files.image, sample.manifest, sample.memory, GENERATE(Encoding::raw, Encoding::zstd));
  std::vector<std::uint64_t> done;
  const auto progress = [&](const Progress& p) {
    CHECK(p.total_bytes == LargeSample::kPages * kPageSize);
    done.push_back(p.done_bytes);
  };
  CHECK(Image::open(files.image).verify(progress) == LargeSample::kPages);
  REQUIRE(done.size() == 3);
  CHECK(std::ranges::is_sorted(done));
  CHECK(done.back() == LargeSample::kPages * kPageSize);
}

TEST_CASE("verification names the first page that differs", "[image][damage]") {
  const LargeSample sample;
  const Files files;
  write_image(files.image, sample.manifest, sample.memory, Encoding::raw);
  for (const std::uint64_t page : {3000u, 1500u, 1050u}) {
    flip_page_byte(files.image, page);
    const auto failure = failure_of([&] { Image::open(files.image).verify(); });
    REQUIRE(failure);
    CHECK(failure->code() == Errc::corrupt_image);
    CHECK_THAT(failure->what(),
               Catch::Matchers::Contains("stored page " + std::to_string(page) + ","));
  }
}

TEST_CASE("verification and copying stop when asked to", "[image]") {
  const Encoding encoding = GENERATE(Encoding::raw, Encoding::zstd);
  const LargeSample sample;
  const Files files;
  write_image(files.image, sample.manifest, sample.memory, encoding);
  const Image image = Image::open(files.image);
  std::stop_source stop;
  const auto stop_at_once = [&](const Progress&) { stop.request_stop(); };

  SECTION("verify") {
    const auto failure = failure_of([&] { image.verify(stop_at_once, stop.get_token()); });
    REQUIRE(failure);
    CHECK(failure->code() == Errc::cancelled);
  }
  SECTION("write_core") {
    const auto failure =
        failure_of([&] { image.write_core(files.core, stop_at_once, stop.get_token()); });
    REQUIRE(failure);
    CHECK(failure->code() == Errc::cancelled);
    CHECK(!std::filesystem::exists(files.core));
  }
}

TEST_CASE("an exception from a progress callback comes out", "[image]") {
  const LargeSample sample;
  const Files files;
  write_image(files.image, sample.manifest, sample.memory, Encoding::raw);
  const auto throwing = [](const Progress&) { throw std::out_of_range("mine"); };
  CHECK_THROWS_AS(Image::open(files.image).verify(throwing), std::out_of_range);
}

TEST_CASE("the core of any image is the raw image of the same state", "[image]") {
  const LargeSample sample;
  const Files files;
  write_image(files.image, sample.manifest, sample.memory, Encoding::raw);
  const auto raw = read_file(files.image);

  const Encoding encoding = GENERATE(Encoding::raw, Encoding::zstd);
  write_image(files.image, sample.manifest, sample.memory, encoding);
  std::uint64_t last_done = 0, last_total = 1;
  Image::open(files.image).write_core(files.core, [&](const Progress& p) {
    last_done = p.done_bytes;
    last_total = p.total_bytes;
  });
  CHECK(same_bytes(read_file(files.core), raw));
  CHECK(last_done == last_total);
  struct stat status;
  REQUIRE(::stat(files.core.c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0600);
}

TEST_CASE("no core is made of a damaged image", "[image][damage]") {
  const Files files;
  write_image(files.image, sample_manifest(), sample_memory(), Encoding::raw);
  flip_page_byte(files.image, 1);
  const auto failure = failure_of([&] { Image::open(files.image).write_core(files.core); });
  REQUIRE(failure);
  CHECK(failure->code() == Errc::corrupt_image);
  CHECK(!std::filesystem::exists(files.core));
}

}  // namespace icecore::test::image_test
