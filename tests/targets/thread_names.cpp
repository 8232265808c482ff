// SPDX-License-Identifier: Apache-2.0
//
// State: threads with names, some of which are hard to read back from /proc.
#include <sys/prctl.h>

#include "target.hpp"

using namespace target;

static const std::string kNames[] = {"worker", "a) S 1 (b",   "two words",
                                     "",       "line\nbreak", "fifteen letters"};

static std::string own_name() {
  char name[16] = {};
  must(::prctl(PR_GET_NAME, name), "PR_GET_NAME");
  return name;
}

int main() {
  Crew crew{std::size(kNames)};
  crew.each([](std::size_t index) { ::prctl(PR_SET_NAME, kNames[index].c_str()); });
  ::prctl(PR_SET_NAME, "the first) one");
  return serve([&] {
    require(own_name() == "the first) one", "the first thread is called " + own_name());
    crew.each([](std::size_t index) {
      require(own_name() == kNames[index], "called " + own_name() + ", not " + kNames[index]);
    });
  });
}
