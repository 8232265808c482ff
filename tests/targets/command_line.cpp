// SPDX-License-Identifier: Apache-2.0
//
// State: a program that knows its arguments, environment, auxiliary vector, executable and name.
#include <sys/auxv.h>
#include <sys/prctl.h>

#include <climits>

#include "target.hpp"

using namespace target;

static std::string executable() {
  char path[PATH_MAX];
  const long length = must(::readlink("/proc/self/exe", path, sizeof path), "readlink");
  return {path, static_cast<std::size_t>(length)};
}

int main(int, char** arguments) {
  std::strcpy(arguments[1], "changed");  // shows in /proc/self/cmdline; room: "an argument"
  must(::setenv("ADDED", "later", 1), "setenv");
  must(::prctl(PR_SET_NAME, "renamed"), "PR_SET_NAME");
  const std::string files[] = {"/proc/self/cmdline", "/proc/self/environ", "/proc/self/auxv",
                               "/proc/self/comm"};
  std::map<std::string, std::string> before;
  for (const std::string& file : files) before[file] = read_file(file);
  const std::string program = executable();
  const auto* random = reinterpret_cast<const char*>(::getauxval(AT_RANDOM));
  const std::string random_bytes{random, 16};

  return serve([&] {
    for (const std::string& file : files)
      require(read_file(file) == before[file], "another " + file);
    require(executable() == program, "another executable: " + executable());
    require(std::string(::getenv("ADDED")) == "later", "another environment");
    require(std::memcmp(random, random_bytes.data(), 16) == 0, "other random bytes");
  });
}
