// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace icecore::sys {

/// A system call without libc and without errno: the result or -errno.  For children that share our
/// memory, and with it the errno and everything else of the thread that made them.
inline __attribute__((always_inline)) long raw_call(long number, long a = 0, long b = 0, long c = 0,
                                                    long d = 0, long e = 0) noexcept {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                   : "rcx", "r11", "memory");
  return result;
}

}  // namespace icecore::sys
