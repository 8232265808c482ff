// SPDX-License-Identifier: Apache-2.0
//
// State: AMX tiles and their configuration hold known values, with the permission to use them.
#include <asm/prctl.h>
#include <cpuid.h>

#include <atomic>

#include "target.hpp"

using namespace target;

struct alignas(64) Tiles {
  std::uint8_t configuration[64];
  std::uint8_t rows[2][16 * 64];
};

// Loads both tiles, waits in user code until *released, and stores them.
extern "C" void hold_tiles(Tiles* tiles, const volatile int* released);
asm(R"(
  .text
  .globl hold_tiles
hold_tiles:
  ldtilecfg (%rdi)
  mov $64, %eax
  lea 64(%rdi), %r8
  lea 64 + 1024(%rdi), %r9
  tileloadd (%r8,%rax,1), %tmm0
  tileloadd (%r9,%rax,1), %tmm7
1:
  pause
  cmpl $0, (%rsi)
  je 1b
  sttilecfg (%rdi)
  tilestored %tmm0, (%r8,%rax,1)
  tilestored %tmm7, (%r9,%rax,1)
  tilerelease
  ret
)");

static volatile int released = 0;
static std::atomic<bool> inside = false, done = false, wrong = false;

static bool has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kAmxTile = 1u << 24;
  constexpr int kTileData = 18;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kAmxTile) != 0 &&
         ::syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, kTileData) == 0;
}

static void hold_once() {
  Tiles before{};
  before.configuration[0] = 1;  // palette
  for (const std::size_t tile : {0u, 7u}) {
    before.configuration[16 + 2 * tile] = 64;  // bytes in a row
    before.configuration[48 + tile] = 16;      // rows
  }
  must(::getrandom(before.rows, sizeof before.rows, 0), "getrandom");
  Tiles after = before;
  inside = true;
  hold_tiles(&after, &released);
  if (std::memcmp(&before, &after, sizeof after) != 0) wrong = true;
  done = true;
}

static void start() {
  released = 0;
  inside = done = false;
  std::thread{hold_once}.detach();
  await([] { return inside.load(); }, "the thread never started");
}

int main() {
  if (!has_amx()) return say("skip: no AMX"), 0;
  start();
  return serve([] {
    require(!done, "the thread came back by itself");
    released = 1;
    await([] { return done.load(); }, "the thread is stuck");
    require(!wrong, "the tiles hold something else");
    std::uint64_t permitted = 0;
    must(::syscall(SYS_arch_prctl, ARCH_GET_XCOMP_PERM, &permitted), "ARCH_GET_XCOMP_PERM");
    require((permitted >> 18 & 1) != 0, "the permission is gone");
    start();
  });
}
