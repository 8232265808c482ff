// SPDX-License-Identifier: Apache-2.0
//
// State: threads are created and end all the time, several at once.
#include <atomic>

#include "target.hpp"

using namespace target;

static std::atomic<std::uint64_t> ended = 0;
static std::atomic<bool> failed = false;

static void create_for_ever() {
  try {
    for (;;) {
      std::vector<std::thread> threads;
      for (int index = 0; index < 8; ++index) threads.emplace_back([] { ++ended; });
      for (std::thread& thread : threads) thread.join();
      // Else it would use up all thread ids of the machine within seconds, and again.
      std::this_thread::sleep_for(std::chrono::milliseconds{1});
    }
  } catch (const std::system_error&) {
    failed = true;
  }
}

int main() {
  std::thread{create_for_ever}.detach();
  return serve([] {
    const std::uint64_t before = ended;
    await([&] { return ended > before + 100 || failed; }, "no more threads are created");
    require(!failed, "a thread could not be created");
  });
}
