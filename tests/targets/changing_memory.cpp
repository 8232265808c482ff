// SPDX-License-Identifier: Apache-2.0
//
// State: MEBIBYTES of memory that a thread writes to without pause: round after round, word by word
// in order, each one more than before.  So at any moment the words before one place are of this
// round, and those from there on of the round before; every word is looked at before it is written.
#include <atomic>

#include "memory.hpp"

using namespace target;

namespace {

std::atomic<std::uint64_t> rounds = 0;
std::atomic<bool> wrong = false;

void write_on(const Pages& pages) {
  const std::size_t count = pages.count * kWordsPerPage;
  std::uint64_t* const words = pages.words(0);
  for (std::uint64_t round = 1;; ++round) {
    for (std::size_t i = 0; i < count; ++i) {
      volatile std::uint64_t& word = words[i];
      if (word != round - 1) wrong = true;
      word = round;
    }
    rounds = round;
  }
}

}  // namespace

int main(int argc, char** arguments) {
  const std::size_t mebibytes = argc > 1 ? std::strtoul(arguments[1], nullptr, 10) : 16;
  const Pages pages = map(mebibytes << 8, MAP_PRIVATE | MAP_ANONYMOUS);
  std::thread{write_on, pages}.detach();
  await([] { return rounds > 1; }, "nothing is written");
  return serve([] {
    const std::uint64_t before = rounds;
    await([=] { return rounds > before + 1; }, "nothing is written any more");
    require(!wrong, "memory is of more than one moment");
  });
}
