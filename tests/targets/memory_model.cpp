// SPDX-License-Identifier: Apache-2.0
//
// Memory that changes in every way it can, held against a model of it, by several threads at once:
//   "work N"  every thread makes N random changes and looks; "ok" or "wrong: …"
//   "children N"  makes N children that live at the same time, each of which looks at all its pages
//   "check?"  looks at every page
#include <sys/mman.h>
#include <sys/wait.h>

#include <sstream>

#include "target.hpp"

namespace {

using namespace target;

constexpr std::size_t kThreads = 3;
constexpr std::size_t kPages = 1024;

/// One thread's pages.  Each has a seed that says what is in it; 0: zeros.
class Arena {
 public:
  explicit Arena(std::uint64_t seed) : random_(seed), seeds_(kPages) {
    // Twice the room: pages move from one half to the other and back.
    base_ = static_cast<std::uint8_t*>(::mmap(nullptr, 2 * kPages * kPageSize, PROT_NONE,
                                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    require(base_ != MAP_FAILED, "mmap");
    where_.assign(kPages, 0);
    map_fresh(0, kPages);
    for (std::size_t page = 0; page < kPages; ++page)
      if (page % 4 != 3) write(page);
  }

  void work(std::size_t changes) {
    for (std::size_t change = 0; change < changes; ++change) {
      const std::size_t page = next() % kPages;
      switch (next() % 16) {
        case 0:
          discard(page, length(page), MADV_DONTNEED);
          break;
        case 1:
          replace(page, length(page));
          break;
        case 2:
        case 3:
          move(page, length(page));
          break;
        case 4:
          protect(page, length(page));
          break;
        case 5:
          if (next() % 8 == 0) fork_and_look(page);
          break;
        case 6:
          read_into(page);
          break;
        case 7:
        case 8:
        case 9:
          write(page);
          break;
        default:
          look(page);
      }
    }
  }

  /// For a child, which may not throw.
  bool holds_everywhere() const {
    for (std::size_t page = 0; page < kPages; ++page)
      if (!holds(at(page), seeds_[page])) return false;
    return true;
  }

  void look_everywhere() const {
    for (std::size_t page = 0; page < kPages; ++page) look(page);
  }

 private:
  std::uint64_t next() { return random_ = pattern(random_, 1); }
  std::size_t length(std::size_t page) {
    return 1 + next() % std::min<std::size_t>(32, kPages - page);
  }

  std::uint8_t* at(std::size_t page) const {
    return base_ + (page + (where_[page] != 0 ? kPages : 0)) * kPageSize;
  }

  void map_fresh(std::size_t page, std::size_t count) {
    for (std::size_t end = page + count; page < end;) {
      std::size_t run = 1;
      while (page + run < end && where_[page + run] == where_[page]) ++run;
      void* const place = at(page);
      require(::mmap(place, run * kPageSize, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == place,
              "mmap");
      page += run;
    }
  }

  static bool holds(const std::uint8_t* page, std::uint64_t seed) {
    const auto* const words = reinterpret_cast<const std::uint64_t*>(page);
    for (std::size_t i = 0; i < kPageSize / 8; ++i)
      if (words[i] != (seed == 0 ? 0 : pattern(seed, i))) return false;
    return true;
  }

  void look(std::size_t page) const {
    if (holds(at(page), seeds_[page])) return;
    const auto* const words = reinterpret_cast<const std::uint64_t*>(at(page));
    std::ostringstream text;
    text << "page " << page << " at " << static_cast<const void*>(at(page)) << " holds " << words[0]
         << " …, not " << (seeds_[page] == 0 ? 0 : pattern(seeds_[page], 0));
    throw Wrong{text.str()};
  }

  void write(std::size_t page) {
    seeds_[page] = next() | 1;
    auto* const words = reinterpret_cast<std::uint64_t*>(at(page));
    for (std::size_t i = 0; i < kPageSize / 8; ++i) words[i] = pattern(seeds_[page], i);
  }

  void forget(std::size_t page, std::size_t count) {
    for (std::size_t i = page; i < page + count; ++i) seeds_[i] = 0;
  }

  void discard(std::size_t page, std::size_t count, int advice) {
    for (std::size_t i = page; i < page + count; ++i)
      must(::madvise(at(i), kPageSize, advice), "madvise");
    forget(page, count);
  }

  void replace(std::size_t page, std::size_t count) {
    for (std::size_t i = page; i < page + count; ++i) must(::munmap(at(i), kPageSize), "munmap");
    map_fresh(page, count);
    forget(page, count);
  }

  void move(std::size_t page, std::size_t count) {
    // A run that lies in one half goes to the other in one call.
    std::size_t run = 1;
    while (run < count && where_[page + run] == where_[page]) ++run;
    std::uint8_t* const from = at(page);
    for (std::size_t i = page; i < page + run; ++i) where_[i] ^= 1;
    // A range of several mappings cannot be moved at once (until Linux 6.17): then page by page.
    if (::mremap(from, run * kPageSize, run * kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED, at(page)) ==
        at(page))
      return;
    for (std::size_t i = 0; i < run; ++i) {
      void* const to = at(page + i);
      // What has moved before the call failed has moved.
      if (::mremap(from + i * kPageSize, kPageSize, kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED, to) !=
          to)
        require(errno == EFAULT, "mremap");
    }
  }

  void protect(std::size_t page, std::size_t count) {
    for (std::size_t i = page; i < page + count; ++i)
      must(::mprotect(at(i), kPageSize, PROT_READ), "mprotect");
    look(page);
    for (std::size_t i = page; i < page + count; ++i)
      must(::mprotect(at(i), kPageSize, PROT_READ | PROT_WRITE), "mprotect");
  }

  /// The child looks at pages of its own copy, some of which it has changed, and so does its child.
  void fork_and_look(std::size_t page) {
    const pid_t child = static_cast<pid_t>(must(::fork(), "fork"));
    if (child == 0) ::_exit(look_as_child(page, 1) ? 0 : 1);
    int status = 0;
    must(::waitpid(child, &status, 0), "waitpid");
    require(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child found something else");
  }

  bool look_as_child(std::size_t page, int generations) {
    for (std::size_t i = 0; i < 64; ++i) {
      const std::size_t other = (page + i * 37) % kPages;
      if (i % 8 == 0) {
        ::madvise(at(other), kPageSize, MADV_DONTNEED);
        seeds_[other] = 0;
      }
      if (!holds(at(other), seeds_[other])) return false;
    }
    if (generations == 0) return true;
    const pid_t child = ::fork();
    if (child == 0) ::_exit(look_as_child(page + 1, generations - 1) ? 0 : 1);
    int status = 0;
    return child > 0 && ::waitpid(child, &status, 0) == child && status == 0;
  }

  /// The kernel, too, may be the first to touch a page.
  void read_into(std::size_t page) {
    int ends[2];
    must(::pipe(ends), "pipe");
    seeds_[page] = next() | 1;
    std::uint64_t words[kPageSize / 8];
    for (std::size_t i = 0; i < kPageSize / 8; ++i) words[i] = pattern(seeds_[page], i);
    must(::write(ends[1], words, sizeof words), "write");
    require(::read(ends[0], at(page), kPageSize) == kPageSize, "read");
    ::close(ends[0]);
    ::close(ends[1]);
  }

  std::uint64_t random_;
  std::vector<std::uint64_t> seeds_;
  std::vector<char> where_;  // which half a page is in
  std::uint8_t* base_;
};

}  // namespace

int main() {
  std::vector<std::unique_ptr<Arena>> arenas;
  Crew crew{kThreads};
  for (std::size_t i = 0; i < kThreads; ++i)
    arenas.push_back(std::make_unique<Arena>(random_number() | 1));
  const auto check = [&] { crew.each([&](std::size_t i) { arenas[i]->look_everywhere(); }); };
  const auto work = [&](const std::string& changes) {
    crew.each([&](std::size_t i) { arenas[i]->work(std::stoul(changes)); });
    return "ok";
  };
  const auto children = [&](const std::string& count) {
    int gate[2];
    must(::pipe(gate), "pipe");
    std::vector<pid_t> all;
    for (std::size_t i = 0; i < std::stoul(count); ++i) {
      const pid_t child = static_cast<pid_t>(must(::fork(), "fork"));
      if (child == 0) {
        char byte = 0;
        ::close(gate[1]);
        if (::read(gate[0], &byte, 1) != 0) ::_exit(2);  // until all are there
        for (const auto& arena : arenas)
          if (!arena->holds_everywhere()) ::_exit(1);
        ::_exit(0);
      }
      all.push_back(child);
    }
    ::close(gate[0]);
    ::close(gate[1]);
    for (const pid_t child : all) {
      int status = 0;
      must(::waitpid(child, &status, 0), "waitpid");
      require(status == 0, "a child found something else");
    }
    return "ok";
  };
  return serve(check, {{"work", work}, {"children", children}});
}
