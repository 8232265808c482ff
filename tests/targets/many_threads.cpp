// SPDX-License-Identifier: Apache-2.0
//
// State: COUNT threads, all waiting in a futex; each has a number and an id of its own.
#include "target.hpp"

using namespace target;

thread_local std::uint64_t own_number = 0;

int main(int argc, char** arguments) {
  Crew crew{argc > 1 ? std::strtoul(arguments[1], nullptr, 10) : 200};
  const std::uint64_t seed = random_number();
  std::vector<long> tids(crew.size());
  crew.each([&](std::size_t index) {
    own_number = pattern(seed, index);
    tids[index] = ::syscall(SYS_gettid);
  });

  return serve([&] {
    crew.each([&](std::size_t index) {
      require(own_number == pattern(seed, index), "another thread_local variable");
      require(tids[index] == ::syscall(SYS_gettid), "another thread id");
    });
  });
}
