// SPDX-License-Identifier: Apache-2.0
//
// Pages with known contents, for the targets whose state is memory.
#pragma once

#include <sys/mman.h>

#include <sstream>

#include "target.hpp"

namespace target {

/// A run of pages that this program mapped.
struct Pages {
  char* start = nullptr;
  std::size_t count = 0;

  char* page(std::size_t index) const { return start + index * kPageSize; }
  std::uint64_t* words(std::size_t index) const {
    return reinterpret_cast<std::uint64_t*>(page(index));
  }
};

constexpr std::size_t kWordsPerPage = kPageSize / sizeof(std::uint64_t);

inline Pages map(std::size_t count, int flags, int protection = PROT_READ | PROT_WRITE,
                 int file = -1, off_t offset = 0) {
  void* start = ::mmap(nullptr, count * kPageSize, protection, flags, file, offset);
  require(start != MAP_FAILED, std::string{"mmap: "} + std::strerror(errno));
  return {static_cast<char*>(start), count};
}

inline void fill(const Pages& pages, std::size_t index, std::uint64_t seed) {
  for (std::size_t word = 0; word < kWordsPerPage; ++word)
    pages.words(index)[word] = pattern(seed, index * kWordsPerPage + word);
}

inline void expect(const Pages& pages, std::size_t index, std::uint64_t seed) {
  for (std::size_t word = 0; word < kWordsPerPage; ++word)
    require(pages.words(index)[word] == pattern(seed, index * kWordsPerPage + word),
            "page " + std::to_string(index) + ", word " + std::to_string(word));
}

inline void expect_zero(const Pages& pages, std::size_t index) {
  for (std::size_t word = 0; word < kWordsPerPage; ++word)
    require(pages.words(index)[word] == 0, "page " + std::to_string(index) + " is not zero");
}

inline void protect(const Pages& pages, std::size_t index, int protection) {
  must(::mprotect(pages.page(index), kPageSize, protection), "mprotect");
}

/// Whether the page takes memory (present or swapped), by /proc/self/pagemap.
inline bool materialised(const Pages& pages, std::size_t index) {
  const int file = static_cast<int>(
      must(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), "/proc/self/pagemap"));
  std::uint64_t entry = 0;
  const auto page_number = reinterpret_cast<std::uintptr_t>(pages.page(index)) / kPageSize;
  must(::pread(file, &entry, sizeof entry, static_cast<off_t>(page_number * sizeof entry)),
       "read of pagemap");
  ::close(file);
  return entry >> 62 != 0;
}

/// A line of /proc/self/smaps about the mapping that `address` lies in.
inline std::string smaps_at(const void* address, const std::string& line_begins) {
  const auto wanted = reinterpret_cast<unsigned long>(address);
  std::istringstream lines{read_file("/proc/self/smaps")};
  bool found = false;
  for (std::string line; std::getline(lines, line);) {
    unsigned long start = 0, end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &start, &end) == 2)
      found = start <= wanted && wanted < end;
    if (found && line.starts_with(line_begins)) return line;
  }
  return {};
}

/// "VmFlags: rd wr … ".
inline std::string flags_at(const void* address) { return smaps_at(address, "VmFlags:") + " "; }

inline bool has_flag(const void* address, const std::string& two_letters) {
  return flags_at(address).find(" " + two_letters + " ") != std::string::npos;
}

/// Whether the kernel itself can read the byte: it says so instead of sending SIGSEGV.
inline bool readable(const void* address) {
  int ends[2];
  must(::pipe2(ends, O_CLOEXEC), "pipe");
  const long written = raw(SYS_write, ends[1], address, 1);
  ::close(ends[0]);
  ::close(ends[1]);
  require(written == 1 || written == -EFAULT, "write from memory");
  return written == 1;
}

/// A new file with `count` patterned pages, open for reading and writing.
inline int make_file(const std::string& path, std::size_t count, std::uint64_t seed) {
  const int file = static_cast<int>(
      must(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), path));
  std::vector<std::uint64_t> words(count * kWordsPerPage);
  for (std::size_t index = 0; index < words.size(); ++index) words[index] = pattern(seed, index);
  must(::write(file, words.data(), count * kPageSize), "write " + path);
  return file;
}

}  // namespace target
