// SPDX-License-Identifier: Apache-2.0
#pragma once

// System calls for the restore thread: no libc, no errno, no allocation, since every other thread
// may stand still with a lock in its hand.

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>

#include <atomic>
#include <cstdint>

namespace fake {

inline long raw(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0,
                long f = 0) noexcept {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

template <class T>
long as_long(T* pointer) noexcept {
  return reinterpret_cast<long>(pointer);
}

inline void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t while_value) noexcept {
  raw(SYS_futex, as_long(&word), FUTEX_WAIT, static_cast<long>(while_value));
}

inline void futex_wake_all(std::atomic<std::uint32_t>& word) noexcept {
  raw(SYS_futex, as_long(&word), FUTEX_WAKE, 1 << 30);
}

inline void raw_pause_ms(long ms) noexcept {
  const ::timespec time{ms / 1000, ms % 1000 * 1'000'000};
  raw(SYS_nanosleep, as_long(&time));
}

inline long raw_now_ms() noexcept {
  ::timespec time{};
  raw(SYS_clock_gettime, CLOCK_MONOTONIC, as_long(&time));
  return time.tv_sec * 1000 + time.tv_nsec / 1'000'000;
}

}  // namespace fake
