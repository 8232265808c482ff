// SPDX-License-Identifier: Apache-2.0
#pragma once

// /proc/PID/smaps and /proc/PID/maps: the mappings of a process with their flags.
//
// Kernel facts relied on here:
//  * "maps" alone does not tell VM_GROWSDOWN, madvise(2) advice, or what else a mapping must not
//    lose; only the VmFlags line of smaps does.  It costs 2.4 µs a mapping and a walk of the page
//    tables (16 ms for a GiB of 4 KiB pages), against 0.3 µs for maps.
//  * A mapped file that has been unlinked shows as "PATH (deleted)"; newlines in a path as \012.
//  * Shared anonymous memory shows as "/dev/zero (deleted)", SysV memory as "/SYSV… (deleted)", a
//    memfd as "/memfd:NAME (deleted)".

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace icecore::sys {

/// One mapping of another process.  (A mapping of our own is a sys::Mapping.)
struct Vma {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::uint64_t offset = 0;
  std::uint64_t device = 0;  ///< as st_dev
  std::uint64_t inode = 0;
  std::uint32_t protection = 0;  ///< PROT_*
  bool shared = false;
  std::string name;  ///< path, "[heap]" …, or empty
  unsigned protection_key = 0;
  std::uint64_t page_size = 0;  ///< 4096, or that of huge pages (hugetlbfs)
  std::string flags;            ///< VmFlags: two letters each, with a blank behind each

  std::uint64_t size() const { return end - start; }

  /// `two_letters` as in the kernel's table of VmFlags: "gd", "hg" …
  bool has_flag(std::string_view two_letters) const {
    for (std::size_t at = 0; at + 2 <= flags.size(); at += 3)
      if (flags.compare(at, 2, two_letters) == 0) return true;
    return false;
  }
};

std::vector<Vma> read_smaps(pid_t pid);

/// Without flags and protection keys, for a fraction of the time.
std::vector<Vma> read_maps(pid_t pid);

/// The same from text, for tests.  `flags` stays empty where the text has no VmFlags.
std::vector<Vma> parse_maps(std::string_view text);

}  // namespace icecore::sys
