// SPDX-License-Identifier: Apache-2.0
#include "image/digest.hpp"

#ifdef __clang__    // which knows this name in C only
#define _Bool bool  // NOLINT(bugprone-reserved-identifier)
#endif
#include <sys/platform/x86.h>

#include "image/xxh3.hpp"

namespace icecore {
namespace {

const Xxh3& xxh3() noexcept {
  // glibc (2.33) has asked the CPU already.  A CPUID instruction of a virtual machine takes 6 us,
  // and __builtin_cpu_supports() executes ten.
  return CPU_FEATURE_ACTIVE(AVX2) ? kXxh3Avx2 : kXxh3;
}

}  // namespace

Digest128 digest128(std::span<const std::byte> bytes) noexcept {
  Digest128 digest;
  xxh3().digest128(bytes.data(), bytes.size(), digest.low, digest.high);
  return digest;
}

std::uint64_t digest64(std::span<const std::byte> bytes) noexcept {
  return xxh3().digest64(bytes.data(), bytes.size());
}

}  // namespace icecore
