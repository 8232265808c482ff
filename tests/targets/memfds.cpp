// SPDX-License-Identifier: Apache-2.0
//
// State: files in memory (memfd_create): contents with a hole, several descriptors of one, mapped
// shared, private, and after being closed, seals of every kind.
#include <linux/memfd.h>
#include <sys/wait.h>

#include "memory.hpp"

using namespace target;

static int make(const char* name, unsigned flags) {
  return static_cast<int>(must(::syscall(SYS_memfd_create, name, flags), "memfd_create"));
}

static int make_filled(const char* name, unsigned flags, std::size_t pages, std::uint64_t seed) {
  const int file = make(name, flags);
  for (std::size_t word = 0; word < pages * kWordsPerPage; ++word) {
    const std::uint64_t value = pattern(seed, word);
    must(::pwrite(file, &value, sizeof value, static_cast<off_t>(word * sizeof value)), "pwrite");
  }
  return file;
}

static void expect_word(int file, std::uint64_t seed, std::size_t word) {
  std::uint64_t value = 0;
  must(::pread(file, &value, sizeof value, static_cast<off_t>(word * sizeof value)), "pread");
  require(value == pattern(seed, word), "word " + std::to_string(word) + " of a memfd");
}

static bool may_write(int file) { return ::pwrite(file, "", 1, 100) == 1; }

int main() {
  const std::uint64_t seed = random_number();
  constexpr off_t kHuge = off_t{1} << 40;

  // One whole terabyte, nearly all of it a hole, that ends within a page.
  const int sparse = make("sparse", MFD_CLOEXEC);
  must(::pwrite(sparse, &seed, sizeof seed, kHuge / 2 + 5), "pwrite");
  must(::pwrite(sparse, &seed, sizeof seed, kHuge + 3), "pwrite");

  const int shared = make_filled("shared", 0, 16, seed);
  const int copy = static_cast<int>(must(::dup2(shared, 60), "dup2"));
  const int reader = static_cast<int>(
      must(::open(("/proc/self/fd/" + std::to_string(shared)).c_str(), O_RDONLY), "reopen"));
  must(::lseek(shared, 123, SEEK_SET), "lseek");
  must(::lseek(reader, 456, SEEK_SET), "lseek");
  const Pages first = map(16, MAP_SHARED, PROT_READ | PROT_WRITE, shared);
  const Pages second = map(8, MAP_SHARED, PROT_READ, reader, 8 * kPageSize);
  const Pages changed = map(16, MAP_PRIVATE, PROT_READ | PROT_WRITE, shared);
  fill(changed, 3, ~seed);

  const int closed = make_filled("closed since", 0, 4, seed + 1);
  const Pages left = map(4, MAP_SHARED, PROT_READ | PROT_WRITE, closed);
  ::close(closed);

  const int sealed = make_filled("sealed", MFD_ALLOW_SEALING, 2, seed + 2);
  must(::fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
       "F_ADD_SEALS");
  const Pages of_sealed = map(2, MAP_PRIVATE, PROT_READ | PROT_WRITE, sealed);
  const int future = make_filled("future", MFD_ALLOW_SEALING, 2, seed + 3);
  const Pages writable = map(2, MAP_SHARED, PROT_READ | PROT_WRITE, future);
  must(::fcntl(future, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), "F_ADD_SEALS");
  const int no_exec = make("", 0x0008 /* MFD_NOEXEC_SEAL */);
  const int never_sealed = make("never sealed", 0);
  must(::fchmod(never_sealed, 0640), "fchmod");
  must(::ftruncate(no_exec, 1), "ftruncate");

  const int program = make("program", 0);
  must(::pwrite(program, "#!/bin/true", 11, 0), "pwrite");

  std::uint64_t number = first.words(9)[7] = random_number();
  return serve([&] {
    std::uint64_t found = 0;
    struct ::stat status {};
    must(::fstat(sparse, &status), "fstat");
    require(status.st_size == kHuge + 11, "the size of the sparse one");
    require(status.st_blocks < 100, "its holes have been filled");
    must(::pread(sparse, &found, sizeof found, kHuge / 2 + 5), "pread");
    require(found == seed, "the middle of the sparse one");
    must(::pread(sparse, &found, sizeof found, kHuge + 3), "pread");
    require(found == seed, "the end of the sparse one");

    require(::lseek(copy, 0, SEEK_CUR) == 123 && ::lseek(reader, 0, SEEK_CUR) == 456, "positions");
    must(::lseek(copy, 321, SEEK_SET), "lseek");
    require(::lseek(shared, 0, SEEK_CUR) == 321, "the position is no longer shared");
    must(::lseek(copy, 123, SEEK_SET), "lseek");
    expect_word(reader, seed, 0);
    require(first.words(9)[7] == number && second.words(1)[7] == number, "what was written last");
    number = first.words(9)[7] = random_number();
    require(second.words(1)[7] == number, "two mappings of one memfd show different bytes");
    must(::pread(reader, &found, sizeof found, 9 * kPageSize + 7 * sizeof number), "pread");
    require(found == number, "the mapping is not the memfd's");
    require(!may_write(reader), "a descriptor for reading can write");
    expect(changed, 3, ~seed);
    expect(changed, 2, seed);
    for (std::size_t page = 0; page < 4; ++page) expect(left, page, seed + 1);

    require(
        ::fcntl(sealed, F_GET_SEALS) == (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
        "seals");
    require(!may_write(sealed), "a sealed memfd can be written");
    expect(of_sealed, 1, seed + 2);
    require(::fcntl(future, F_GET_SEALS) == F_SEAL_FUTURE_WRITE, "the seal of future writes");
    expect(writable, 1, seed + 3);
    writable.words(0)[0] = pattern(seed + 3, 0);
    require(::mmap(nullptr, kPageSize, PROT_WRITE, MAP_SHARED, future, 0) == MAP_FAILED,
            "it can be mapped for writing");
    require(::fcntl(no_exec, F_GET_SEALS) == 0x20, "F_SEAL_EXEC");
    must(::fstat(no_exec, &status), "fstat");
    require(status.st_size == 1 && (status.st_mode & 0777) == 0666, "size or mode without exec");
    require(::fcntl(never_sealed, F_GET_SEALS) == F_SEAL_SEAL, "it can be sealed");
    must(::fstat(never_sealed, &status), "fstat");
    require((status.st_mode & 0777) == 0640, "mode");

    const auto child = static_cast<pid_t>(must(::fork(), "fork"));
    if (child == 0) {
      char name[] = "true";
      char* const arguments[] = {name, nullptr};
      ::execveat(program, "", arguments, arguments + 1, AT_EMPTY_PATH);
      ::_exit(errno);
    }
    int ended = 0;
    must(::waitpid(child, &ended, 0), "waitpid");
    require(WIFEXITED(ended) && WEXITSTATUS(ended) == 0, "a memfd cannot be executed");
  });
}
