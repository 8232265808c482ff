// SPDX-License-Identifier: Apache-2.0
#include "sys/machine.hpp"

#include <sys/utsname.h>
#include <unistd.h>

#include <filesystem>
#include <string_view>

#include "sys/procfs.hpp"

namespace icecore::sys {
namespace {

std::string trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == text.npos) return {};
  return std::string{text.substr(first, text.find_last_not_of(" \t") - first + 1)};
}

/// Of a line "NAME  : VALUE".
std::string value_after(std::string_view text, std::string_view name) {
  const std::size_t at = text.find(name);
  if (at == text.npos) return {};
  const std::size_t colon = text.find(':', at);
  if (colon == text.npos) return {};
  return trimmed(text.substr(colon + 1, text.find('\n', colon) - colon - 1));
}

/// The first word that looks like a version, with digits and two dots or one.
std::string version_in(std::string_view line) {
  for (std::size_t at = 0; at < line.size();) {
    const std::size_t end = std::min(line.find_first_of(" \t\n", at), line.size());
    const std::string_view word = line.substr(at, end - at);
    if (word.find('.') != word.npos && word.find_first_not_of("0123456789.") == word.npos)
      return std::string{word};
    at = end + 1;
  }
  return {};
}

}  // namespace

std::string machine_name() {
  ::utsname names{};
  ::uname(&names);
  return names.nodename;
}

std::string cpu_model() {
  return value_after(read_until("/proc/cpuinfo", "\nmodel name"), "\nmodel name");
}

std::uint64_t page_size_bytes() { return static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)); }

Gpu find_gpu() {
  Gpu gpu;
  const auto version = try_read_file("/proc/driver/nvidia/version");
  if (!version) return gpu;
  gpu.driver = version_in(*version);
  gpu.model = "unknown";
  std::error_code ignored;
  for (const auto& folder :
       std::filesystem::directory_iterator{"/proc/driver/nvidia/gpus", ignored}) {
    if (const auto text = try_read_file(folder.path() / "information"))
      gpu.model = value_after(*text, "Model");
    break;
  }
  return gpu;
}

}  // namespace icecore::sys
