// SPDX-License-Identifier: Apache-2.0
//
// State: what a process has set for all of its memory: no page is ever writable and executable,
// huge pages only where advised, what a core dump holds, registrations for membarrier.
#include <linux/membarrier.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "target.hpp"

using namespace target;

static constexpr int kSetMdwe = 65, kGetMdwe = 66;
static constexpr int kGetRegistrations = 1 << 9;

static void write_file(const char* path, const std::string& text) {
  const int file = static_cast<int>(must(::open(path, O_WRONLY | O_CLOEXEC), path));
  must(::write(file, text.data(), text.size()), path);
  ::close(file);
}

static std::string dump_filter() { return read_file("/proc/self/coredump_filter"); }

int main() {
  must(::prctl(kSetMdwe, 1, 0, 0, 0), "PR_SET_MDWE");
  if (::prctl(PR_SET_THP_DISABLE, 1, 2, 0, 0) != 0)  // Linux 6.18
    must(::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), "PR_SET_THP_DISABLE");
  const long huge_pages = ::prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
  write_file("/proc/self/coredump_filter", "0x7");
  for (const int command :
       {MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED,
        MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE})
    must(::syscall(SYS_membarrier, command, 0, 0), "membarrier");
  const long registered = raw(SYS_membarrier, kGetRegistrations, 0, 0);
  const std::string filter = dump_filter();
  return serve([=] {
    require(::prctl(kGetMdwe, 0, 0, 0, 0) == 1, "PR_GET_MDWE");
    require(raw(SYS_mmap, 0, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == -EACCES,
            "memory may be writable and executable");
    require(::prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == huge_pages, "PR_GET_THP_DISABLE");
    require(dump_filter() == filter, "another core dump filter");
    require(raw(SYS_membarrier, kGetRegistrations, 0, 0) == registered, "registrations");
    must(::syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0), "membarrier");
  });
}
