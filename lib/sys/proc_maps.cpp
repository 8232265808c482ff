// SPDX-License-Identifier: Apache-2.0
#include "sys/proc_maps.hpp"

#include <sys/mman.h>
#include <sys/sysmacros.h>

#include <charconv>
#include <cstdlib>

#include "icecore/error.hpp"
#include "sys/procfs.hpp"

namespace icecore::sys {
namespace {

/// Reads a number and what stands between it and the next one.
std::uint64_t take_number(std::string_view& line, int base) {
  std::uint64_t number = 0;
  const auto end = std::from_chars(line.data(), line.data() + line.size(), number, base).ptr;
  line.remove_prefix(static_cast<std::size_t>(end - line.data()));
  if (!line.empty()) line.remove_prefix(1);
  return number;
}

std::string unescape(std::string_view name) {
  std::string plain;
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (name.substr(i, 4) == "\\012") {
      plain += '\n';
      i += 3;
    } else {
      plain += name[i];
    }
  }
  return plain;
}

Vma parse_first_line(std::string_view line) {
  Vma vma;
  vma.start = take_number(line, 16);
  vma.end = take_number(line, 16);
  if (line.size() < 5) throw Error{Errc::internal, "a line of /proc/PID/maps is too short"};
  vma.protection = (line[0] == 'r' ? PROT_READ : 0U) | (line[1] == 'w' ? PROT_WRITE : 0U) |
                   (line[2] == 'x' ? PROT_EXEC : 0U);
  vma.shared = line[3] == 's';
  line.remove_prefix(5);
  vma.offset = take_number(line, 16);
  const auto major = static_cast<unsigned>(take_number(line, 16));
  const auto minor = static_cast<unsigned>(take_number(line, 16));
  vma.device = ::makedev(major, minor);
  vma.inode = take_number(line, 10);
  const std::size_t name = line.find_first_not_of(' ');
  if (name != std::string_view::npos) vma.name = unescape(line.substr(name));
  return vma;
}

/// A mapping's own line begins with a lower-case hexadecimal digit, the lines about it with a
/// capital letter.
bool starts_mapping(std::string_view line) {
  return !line.empty() &&
         ((line[0] >= '0' && line[0] <= '9') || (line[0] >= 'a' && line[0] <= 'f'));
}

/// The next line of maps or smaps.
void add_line(std::vector<Vma>& vmas, std::string_view line) {
  constexpr std::string_view kFlags = "VmFlags: ";
  constexpr std::string_view kProtectionKey = "ProtectionKey:";
  constexpr std::string_view kKernelPageSize = "KernelPageSize:";
  if (starts_mapping(line)) {
    vmas.push_back(parse_first_line(line));
  } else if (vmas.empty()) {
    return;
  } else if (line.starts_with(kProtectionKey)) {
    vmas.back().protection_key =
        static_cast<unsigned>(std::atoi(std::string{line.substr(kProtectionKey.size())}.c_str()));
  } else if (line.starts_with(kKernelPageSize)) {
    vmas.back().page_size =
        std::strtoull(std::string{line.substr(kKernelPageSize.size())}.c_str(), nullptr, 10) * 1024;
  } else if (line.starts_with(kFlags)) {
    vmas.back().flags = line.substr(kFlags.size());
  }
}

std::vector<Vma> read(const std::string& path) {
  std::vector<Vma> vmas;
  for_each_line(path, [&](std::string_view line) { add_line(vmas, line); });
  return vmas;
}

}  // namespace

std::vector<Vma> parse_maps(std::string_view text) {
  std::vector<Vma> vmas;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    add_line(vmas, text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return vmas;
}

std::vector<Vma> read_maps(pid_t pid) { return read("/proc/" + std::to_string(pid) + "/maps"); }

std::vector<Vma> read_smaps(pid_t pid) { return read("/proc/" + std::to_string(pid) + "/smaps"); }

}  // namespace icecore::sys
