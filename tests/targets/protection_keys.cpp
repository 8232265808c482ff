// SPDX-License-Identifier: Apache-2.0
//
// State: PKRU, the register of memory protection keys, has a value of its own on each thread.
#include <sys/mman.h>

#include "target.hpp"

using namespace target;

static int read_pkru() {
  int value;
  asm volatile("rdpkru" : "=a"(value) : "c"(0) : "rdx");
  return value;
}

static void write_pkru(int value) { asm volatile("wrpkru" ::"a"(value), "c"(0), "d"(0)); }

int main() {
  const int key = ::pkey_alloc(0, 0);
  if (key < 0) return say("skip: no protection keys"), 0;
  must(::pkey_free(key), "pkey_free");

  // Keys 1 and 2 differ; no memory has them, so only the register can tell.
  const auto wanted = [](std::size_t index) { return 0x55555550 & ~(0xc << (4 * (index % 2))); };
  Crew crew{2};
  crew.each([&](std::size_t index) { write_pkru(wanted(index)); });
  const int own = 0x55555540;
  write_pkru(own);

  return serve([&] {
    require(read_pkru() == own, "another PKRU on the first thread");
    crew.each([&](std::size_t i) { require(read_pkru() == wanted(i), "another PKRU"); });
  });
}
