// SPDX-License-Identifier: Apache-2.0
//
// State: resource limits other than those of whoever started the program.
#include <sys/resource.h>

#include "target.hpp"

using namespace target;

static rlimit limit(int resource) {
  rlimit found{};
  must(::syscall(SYS_getrlimit, resource, &found), "getrlimit");
  return found;
}

int main() {
  const std::pair<int, rlimit> changed[] = {{RLIMIT_NOFILE, {77, 177}},
                                            {RLIMIT_CORE, {0, 0}},
                                            {RLIMIT_STACK, {4 << 20, 16 << 20}},
                                            {RLIMIT_FSIZE, {1 << 30, 1 << 30}},
                                            {RLIMIT_RTPRIO, {0, 0}}};
  for (const auto& [resource, wanted] : changed)
    must(::syscall(SYS_setrlimit, resource, &wanted), "setrlimit");
  rlimit before[RLIM_NLIMITS];
  for (int resource = 0; resource < static_cast<int>(RLIM_NLIMITS); ++resource)
    before[resource] = limit(resource);

  return serve([&] {
    for (int resource = 0; resource < static_cast<int>(RLIM_NLIMITS); ++resource) {
      const rlimit now = limit(resource);
      const rlimit& then = before[resource];
      require(now.rlim_cur == then.rlim_cur && now.rlim_max == then.rlim_max,
              "limit " + std::to_string(resource));
    }
  });
}
