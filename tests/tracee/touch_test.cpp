// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <fstream>

#include "support/temporary_folder.hpp"
#include "sys/page.hpp"
#include "sys/pagemap_scan.hpp"
#include "tracee/remote_syscalls.hpp"
#include "tracee/stub_process.hpp"
#include "tracee/tracer_thread.hpp"

namespace test::touch_test {

using namespace icecore;

constexpr std::uint64_t kArea = 0x10000000, kFile = 0x20000000, kNowhere = 0x30000000;

TEST_CASE("what is touched is mapped, and what cannot be touched is passed over") {
  TemporaryFolder folder;
  const std::string path = folder / "two pages";
  std::ofstream{path} << std::string(2 * kPageSize, 'x');
  on_tracer_thread([&] {
    StubProcess stub{std::size_t{16} * kPageSize, 0, false};
    stub.map_area(kArea);
    RemoteSyscalls remote{stub.area(), kArea, stub.pid()};
    CallList list{remote.data_begin(), 4 * kPageSize, 16};
    const std::uint64_t name = list.put_string(path);
    const std::size_t opened = list.try_call(SYS_open, {name, O_RDONLY});
    remote.run(stub.leader(), list);
    const auto file = static_cast<std::uint64_t>(list.result(opened));
    REQUIRE(list.result(opened) >= 0);

    list.clear();
    list.call("map four pages of a file that has two", SYS_mmap,
              {kFile, 4 * kPageSize, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 0});
    list.call("have each fault alone", SYS_madvise, {kFile, 4 * kPageSize, MADV_RANDOM});
    list.touch(kFile, 1);
    list.touch(kFile + 2 * kPageSize, 2);  // SIGBUS
    list.touch(kNowhere, 1);               // SIGSEGV
    list.touch(kFile, 0);
    const std::size_t last = list.try_call(SYS_getpid, {});
    remote.run(stub.leader(), list);
    CHECK(list.result(last) == stub.pid());

    std::vector<sys::PageRange> present;
    sys::PagemapScan{stub.pid()}.used_file_pages(kFile, kFile + 4 * kPageSize, present);
    REQUIRE(present.size() == 1);
    CHECK(present[0].start == kFile);
    CHECK(present[0].end >= kFile + kPageSize);
  });
}

}  // namespace test::touch_test
