// SPDX-License-Identifier: Apache-2.0
//
// State: a program that has unmapped the text of its vdso, but not the data, as valgrind does; or,
// with the argument "all", both.
#include "target.hpp"

using namespace target;

/// Not by libc, which would ask the vdso.
static std::string mapped_parts() {
  const std::string maps = read_file("/proc/self/maps");
  std::string found;
  for (const char* part : {"[vdso]", "[vvar]", "[vvar_vclock]"})
    if (maps.find(part) != std::string::npos) found += part;
  return found;
}

static void unmap(const std::string& part) {
  const std::string maps = read_file("/proc/self/maps");
  const std::size_t at = maps.find(part);
  if (at == std::string::npos) return;
  unsigned long start = 0, end = 0;
  const std::size_t line = maps.rfind('\n', at) + 1;
  require(std::sscanf(maps.c_str() + line, "%lx-%lx", &start, &end) == 2, "an odd line in maps");
  must(raw(SYS_munmap, start, end - start) == 0 ? 0 : -1, "munmap " + part);
}

int main(int count, char**) {
  unmap("[vdso]");
  if (count > 1)
    for (const char* part : {"[vvar]", "[vvar_vclock]"}) unmap(part);
  const std::string left = mapped_parts();
  return serve([&] {
    require(mapped_parts() == left, "mapped now: " + mapped_parts());
    timespec now{};
    must(::syscall(SYS_clock_gettime, CLOCK_REALTIME, &now), "clock_gettime");
  });
}
