// SPDX-License-Identifier: Apache-2.0
#include "sys/own_program.hpp"

#include <cstdlib>
#include <filesystem>

#include "sys/files.hpp"

namespace icecore::sys {

std::string find_own_program(const std::string& name, const char* variable) {
  if (const char* path = ::secure_getenv(variable)) return path;
  const std::filesystem::path folder = own_file().parent_path();
  for (const char* place : {"", "bin", "../libexec", "../../libexec", "../bin"})
    if (std::error_code ignored; std::filesystem::exists(folder / place / name, ignored))
      return folder / place / name;
  return {};
}

}  // namespace icecore::sys
