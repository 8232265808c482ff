// SPDX-License-Identifier: Apache-2.0
#include "support/run.hpp"

#include <sys/mman.h>

#include <filesystem>
#include <sstream>

namespace test {
namespace {

/// Where output goes that is read later.  Unlike a pipe it never fills.
Descriptor memory_file() {
  return Descriptor{must(::memfd_create("output", MFD_CLOEXEC), "memfd_create")};
}

std::string contents(const Descriptor& file) {
  std::string text;
  char bytes[4096];
  for (ssize_t count;
       (count = ::pread(file.get(), bytes, sizeof bytes, static_cast<off_t>(text.size()))) > 0;)
    text.append(bytes, static_cast<std::size_t>(count));
  return text;
}

}  // namespace

Outcome run(const Arguments& arguments, std::chrono::milliseconds patience) {
  const Descriptor out = memory_file(), err = memory_file();
  const Descriptor nothing{must(::open("/dev/null", O_RDONLY | O_CLOEXEC), "/dev/null")};
  Process process = Process::start(arguments, {nothing.get(), out.get(), err.get()});
  const int status = exit_status(process.wait(patience));
  return {status, contents(out), contents(err)};
}

Outcome icecore(Arguments arguments, std::chrono::milliseconds patience) {
  arguments.insert(arguments.begin(), ICECORE_TOOL);
  return run(arguments, patience);
}

bool in_path(const std::string& program) {
  std::istringstream folders{::getenv("PATH") != nullptr ? ::getenv("PATH") : ""};
  for (std::string folder; std::getline(folders, folder, ':');)
    if (::access((folder + "/" + program).c_str(), X_OK) == 0) return true;
  return false;
}

}  // namespace test
