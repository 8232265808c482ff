// SPDX-License-Identifier: Apache-2.0
//
// State: segments that two threads have made with set_thread_area(2), each its own, and that no
// register selects; as far as the kernel has 32-bit system calls, which alone can do that.
#include <asm/ldt.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "target.hpp"

using namespace target;

static constexpr int kSetThreadArea = 243, kGetThreadArea = 244;  // of 32-bit programs

/// Where 32-bit system calls find it.
static user_desc* low_room() {
  static std::mutex mutex;
  const std::lock_guard lock{mutex};
  void* const page = ::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  require(page != MAP_FAILED, "mmap");
  return static_cast<user_desc*>(page);
}

static long call_32(long number, user_desc* argument) {
  long result = number;
  __asm__ volatile("int $0x80" : "+a"(result) : "b"(argument) : "memory", "r8", "r9", "r10", "r11");
  return static_cast<int>(result);
}

/// The kernel may be built, or started, without them; then they are a fault.
static bool has_32_bit_calls() {
  const pid_t child = static_cast<pid_t>(must(::fork(), "fork"));
  if (child == 0) {
    user_desc* const any = low_room();
    any->entry_number = 12;
    ::_exit(call_32(kGetThreadArea, any) == 0 ? 0 : 1);
  }
  int status = 0;
  must(::waitpid(child, &status, 0), "waitpid");
  return status == 0;
}

static std::string slots_of_this_thread() {
  user_desc* const room = low_room();
  std::string slots;
  for (unsigned slot = 12; slot <= 14; ++slot) {
    std::memset(room, 0, sizeof *room);
    room->entry_number = slot;
    require(call_32(kGetThreadArea, room) == 0, "get_thread_area");
    slots.append(reinterpret_cast<const char*>(room), sizeof *room);
  }
  ::munmap(room, kPageSize);
  return slots;
}

static void set_slot(unsigned slot, unsigned base) {
  user_desc* const room = low_room();
  std::memset(room, 0, sizeof *room);
  room->entry_number = slot;
  room->base_addr = base;
  room->limit = 0xfffff;
  room->seg_32bit = 1;
  room->limit_in_pages = 1;
  room->useable = 1;
  require(call_32(kSetThreadArea, room) == 0, "set_thread_area");
  ::munmap(room, kPageSize);
}

int main() {
  const bool available = has_32_bit_calls();
  Crew crew{3};
  std::string before[3];
  if (available)
    crew.each([&](std::size_t index) {
      if (index < 2) set_slot(12 + static_cast<unsigned>(index), 0x10000);
      if (index == 1) set_slot(14, 0x23000);
      before[index] = slots_of_this_thread();
    });
  require(!available || (before[0] != before[1] && before[1] != before[2]), "no segments");
  return serve([&] {
    if (available)
      crew.each([&](std::size_t index) {
        require(slots_of_this_thread() == before[index], "another segment");
      });
  });
}
