// SPDX-License-Identifier: Apache-2.0
#include "pager/hands.hpp"

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <thread>

#include "image/sample_image.hpp"
#include "sys/cpu.hpp"
#include "sys/mapping.hpp"

namespace icecore::test::hands_test {

using pager::Hands;
using pager::Piece;
using Stop = sys::FillResult::Stop;

constexpr std::uint64_t kPages = 64;

/// Memory of our own that is missing, and an image of what belongs there.
struct Fixture {
  explicit Fixture(Encoding encoding)
      : bytes(image_bytes(sample_manifest(), expected, encoding)),
        faults(sys::Fd{static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK))},
               sys::Userfaultfd::Use::fill) {
    faults.register_missing(address(0), address(kPages));
  }

  std::uint64_t address(std::uint64_t page) const {
    return reinterpret_cast<std::uint64_t>(memory.data()) + page * kPageSize;
  }

  Piece piece(std::uint64_t first, std::uint64_t count, const sys::PagemapScan* pagemap = nullptr) {
    return {.faults = &faults,
            .pagemap = pagemap,
            .range = {.address = address(first), .first_page = first, .pages = count},
            .awaited = false,
            .guards = {},
            .unreadable = {},
            .result = {},
            .failure = {}};
  }

  bool is_there(std::uint64_t first, std::uint64_t count) const {
    return same_bytes(memory.bytes().subspan(first * kPageSize, count * kPageSize),
                      std::span{expected.bytes}.subspan(first * kPageSize, count * kPageSize));
  }

  Memory expected = sample_memory(kPages);
  std::vector<std::byte> bytes;
  ImageReader reader{bytes};
  PageStore store{reader};
  sys::Mapping memory = sys::Mapping::anonymous(kPages * kPageSize);
  sys::Userfaultfd faults;
};

std::ptrdiff_t threads() {
  return std::ranges::distance(std::filesystem::directory_iterator{"/proc/self/task"});
}

/// ThreadSanitizer starts a thread of its own with the program's first.
void start_first_thread() {
  std::string task;
  std::thread{[&] { task = fmt::format("/proc/self/task/{}", ::gettid()); }}.join();
  while (std::filesystem::exists(task)) std::this_thread::yield();  // join() returns before that
}

TEST_CASE("pieces are filled, one or many at once", "[hands]") {
  const auto encoding = GENERATE(Encoding::raw, Encoding::zstd);
  Fixture fixture{encoding};
  Hands hands{fixture.store};
  start_first_thread();
  const auto before = threads();
  std::vector<Piece> one = {fixture.piece(0, 4)};
  hands.fill(one);
  CHECK(threads() == before);  // a single piece is not worth a thread
  std::vector<Piece> many;
  for (std::uint64_t page = 4; page < kPages; page += 4) many.push_back(fixture.piece(page, 4));
  hands.fill(many);
  const bool two = encoding == Encoding::zstd && sys::usable_cpus() > 1;
  CHECK(threads() == before + (two ? 1 : 0));
  for (const Piece& piece : many) {
    CHECK(piece.result.stop == Stop::none);
    CHECK(piece.result.done_bytes == 4 * kPageSize);
  }
  CHECK(fixture.is_there(0, kPages));
}

TEST_CASE("the same hands fill again and again", "[hands]") {
  for (int round = 0; round < 200; ++round) {
    Fixture fixture{Encoding::zstd};
    Hands hands{fixture.store};
    for (std::uint64_t page = 0; page < kPages; page += 8) {
      std::vector<Piece> pieces;
      for (std::uint64_t i = 0; i < 8; ++i) pieces.push_back(fixture.piece(page + i, 1));
      hands.fill(pieces);
    }
    if (!fixture.is_there(0, kPages)) FAIL("round " << round);
  }
}

TEST_CASE("each piece says what has become of it", "[hands]") {
  Fixture fixture{Encoding::raw};
  Hands hands{fixture.store};
  std::vector<Piece> pieces;
  for (std::uint64_t page = 0; page < 6; ++page) pieces.push_back(fixture.piece(page, 1));
  fixture.bytes[kPageSize + 2 * kPageSize] ^= std::byte{1};  // where raw pages begin, and the third
  hands.fill({&pieces[4], 1});
  hands.fill(pieces);
  REQUIRE(pieces[2].unreadable);
  CHECK_THAT(*pieces[2].unreadable, Catch::Contains("differs from its digest"));
  CHECK(pieces[4].result.stop == Stop::exists);
  for (const std::size_t good : {0U, 1U, 3U, 5U})
    CHECK(pieces[good].result.done_bytes == kPageSize);
}

}  // namespace icecore::test::hands_test
