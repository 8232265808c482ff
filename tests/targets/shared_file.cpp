// SPDX-License-Identifier: Apache-2.0
//
// State: a shared, written mapping of a file in FOLDER, and a shared one that only reads it.
#include "memory.hpp"

using namespace target;

int main(int, char** arguments) {
  const std::uint64_t seed = random_number();
  const std::string path = std::string{arguments[1]} + "/shared_file";
  const int file = make_file(path, 16, seed);
  const Pages pages = map(16, MAP_SHARED, PROT_READ | PROT_WRITE, file);
  ::close(file);
  const int read_only = static_cast<int>(must(::open(path.c_str(), O_RDONLY | O_CLOEXEC), path));
  const Pages view = map(8, MAP_SHARED, PROT_READ, read_only, 8 * kPageSize);
  ::close(read_only);
  std::uint64_t number = pages.words(9)[7] = random_number();

  return serve([&] {
    require(pages.words(9)[7] == number, "what was written is gone");
    require(view.words(1)[7] == number, "the other view shows something else");
    number = pages.words(9)[7] = random_number();
    std::uint64_t in_file = 0;
    const int again = static_cast<int>(must(::open(path.c_str(), O_RDONLY | O_CLOEXEC), path));
    must(::pread(again, &in_file, sizeof in_file, 9 * kPageSize + 7 * sizeof number), "pread");
    ::close(again);
    require(in_file == number, "the mapping is not the file's");
    require(::mprotect(view.start, kPageSize, PROT_READ | PROT_WRITE) == -1 && errno == EACCES,
            "a mapping of a file opened for reading may be made writable");
  });
}
