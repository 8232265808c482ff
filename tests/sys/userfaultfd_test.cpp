// SPDX-License-Identifier: Apache-2.0
//
// Why shared memory is filled before the process runs (docs/design.md): what the kernel does not
// tell.  Should one of these fail, it has learned to.
#include "sys/userfaultfd.hpp"

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "icecore/error.hpp"
#include "support/skip.hpp"
#include "sys/page.hpp"

namespace test::userfaultfd_test {

using icecore::kPageSize;
using icecore::sys::PageEvent;
using icecore::sys::PageMessage;
using icecore::sys::Userfaultfd;

constexpr std::size_t kPages = 8;

/// Shared memory of which all pages are to be filled with ones when they are touched.
class SharedMemory {
 public:
  SharedMemory()
      : faults_(std::in_place,
                icecore::sys::Fd{static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC))},
                Userfaultfd::Use::events),
        start_(static_cast<char*>(::mmap(nullptr, kPages * kPageSize, PROT_READ | PROT_WRITE,
                                         MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
    REQUIRE(start_ != MAP_FAILED);
    faults_->register_missing(address(0), address(kPages));
  }
  SharedMemory(const SharedMemory&) = delete;
  ~SharedMemory() {
    faults_.reset();  // nobody reads any more that memory has been unmapped
    ::munmap(start_, kPages * kPageSize);
  }

  char* page(std::size_t index) const { return start_ + index * kPageSize; }
  std::uint64_t address(std::size_t index) const {
    return reinterpret_cast<std::uint64_t>(page(index));
  }

  /// All that the kernel says until `work` is done.  Answers every fault.
  template <class Work>
  std::vector<PageEvent> events_of(Work work) {
    std::vector<PageEvent> events;
    std::jthread worker{[&] {
      work();
      ::madvise(page(kPages - 1), kPageSize, MADV_DONTNEED);  // the last event
    }};
    for (;;) {
      std::array<PageMessage, 1> message;
      REQUIRE(faults_->read(message) == 1);
      events.push_back(icecore::sys::decode(message[0]));
      const PageEvent& event = events.back();
      if (event.kind == PageEvent::Kind::fault)
        faults_->copy(event.start / kPageSize * kPageSize, std::as_bytes(std::span{ones_}));
      if (event.kind == PageEvent::Kind::remove && event.start == address(kPages - 1)) break;
    }
    events.pop_back();
    return events;
  }

 private:
  const std::vector<char> ones_ = std::vector<char>(kPageSize, 1);
  std::optional<Userfaultfd> faults_;
  char* const start_;
};

/// False where events are not permitted.
bool can_be_tried() {
  try {
    const SharedMemory memory;
    return true;
  } catch (const icecore::Error& error) {
    skip(error.what());
    return false;
  }
}

TEST_CASE("of shared memory the kernel does not say whether it has been emptied") {
  if (!can_be_tried()) return;
  SharedMemory memory;
  const auto discard = [&](std::size_t page, int advice) {
    int result = 0;
    const auto events =
        memory.events_of([&] { result = ::madvise(memory.page(page), kPageSize, advice); });
    REQUIRE(events.size() == 1);
    CHECK(events[0].kind == PageEvent::Kind::remove);
    CHECK(events[0].start == memory.address(page));
    return result;
  };
  // The page stays what it is; the page is zeros from then on; nothing has happened.
  CHECK(discard(1, MADV_DONTNEED) == 0);
  CHECK(discard(2, MADV_REMOVE) == 0);
  CHECK(discard(3, MADV_FREE) == -1);
}

TEST_CASE("of shared memory the kernel does not say that it is mapped once more") {
  if (!can_be_tried()) return;
  SharedMemory memory;
  char rearranged = 9;
  const auto events = memory.events_of([&] {
    if (::syscall(SYS_remap_file_pages, memory.page(2), kPageSize, 0, 4, 0) == 0)
      rearranged = *static_cast<volatile char*>(memory.page(2));
  });
  CHECK(events.empty());
  CHECK(rearranged == 0);  // page 4, which is to hold ones

  const std::string range =
      fmt::format("/proc/self/map_files/{:x}-{:x}", memory.address(3), memory.address(kPages));
  const int file = ::open(range.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return skip(range + ": needs CAP_CHECKPOINT_RESTORE");
  char read = 9;
  const auto of_reading = memory.events_of([&] { (void)!::pread(file, &read, 1, 5 * kPageSize); });
  ::close(file);
  CHECK(of_reading.empty());
  CHECK(read == 0);
}

TEST_CASE("shared memory is filled when it is touched, where its mapping is known") {
  if (!can_be_tried()) return;
  SharedMemory memory;
  char seen = 9;
  const auto events =
      memory.events_of([&] { seen = *static_cast<volatile char*>(memory.page(6)); });
  REQUIRE(events.size() == 1);
  CHECK(events[0].kind == PageEvent::Kind::fault);
  CHECK(seen == 1);
}

}  // namespace test::userfaultfd_test
