// SPDX-License-Identifier: Apache-2.0
//
// State: a computation whose numbers are in AVX-512 registers all the time, and never in memory.
#include <atomic>

#include "target.hpp"

using namespace target;

static std::atomic<bool> stop = false;
static std::uint64_t seed, rounds;
static std::uint64_t found[8];

using Lanes = std::uint64_t __attribute__((vector_size(64)));

/// xorshift64 in eight lanes, of which some count in each round.
__attribute__((target("avx512f"))) static void compute() {
  Lanes x, sum{};
  for (std::size_t lane = 0; lane < 8; ++lane) x[lane] = pattern(seed, lane) | 1;
  const Lanes lanes{0, 1, 2, 3, 4, 5, 6, 7};
  std::uint64_t round = 0;
  for (; !stop.load(std::memory_order_relaxed); ++round) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    const Lanes now = (Lanes{} + round) >> lanes;
    sum += x & -(now & 1);
  }
  std::memcpy(found, &sum, sizeof found);
  rounds = round;
}

/// The same, a lane after the other.
static void expect_same() {
  for (std::size_t lane = 0; lane < 8; ++lane) {
    std::uint64_t x = pattern(seed, lane) | 1, sum = 0;
    for (std::uint64_t round = 0; round < rounds; ++round) {
      x ^= x << 13;
      x ^= x >> 7;
      x ^= x << 17;
      if ((round >> lane & 1) != 0) sum += x;
    }
    require(sum == found[lane], "lane " + std::to_string(lane) + " has another sum");
  }
}

static std::thread start() {
  stop = false;
  seed = random_number();
  return std::thread{compute};
}

int main() {
  if (!__builtin_cpu_supports("avx512f")) return say("skip: no AVX-512"), 0;
  std::thread computing = start();
  return serve([&] {
    stop = true;
    computing.join();
    expect_same();
    computing = start();
  });
}
