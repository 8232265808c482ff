// SPDX-License-Identifier: Apache-2.0
#include "sys/cpu.hpp"

#include <cpuid.h>
#include <sched.h>

#include <algorithm>
#include <string_view>

#include "sys/procfs.hpp"

namespace icecore::sys {
namespace {

constexpr std::string_view kInstructionFeatures =
    " 3dnow 3dnowext 3dnowprefetch abm adx aes amx_bf16 amx_complex amx_fp16 amx_int8 amx_tile avx "
    "avx2"
    " avx512_4fmaps avx512_4vnniw avx512_bf16 avx512_bitalg avx512_fp16 avx512_vbmi2 avx512_vnni"
    " avx512_vp2intersect avx512_vpopcntdq avx512bw avx512cd avx512dq avx512er avx512f avx512ifma"
    " avx512pf avx512vbmi avx512vl avx_ifma avx_ne_convert avx_vnni avx_vnni_int16 avx_vnni_int8 "
    "bmi1"
    " bmi2 cldemote clflush clflushopt clwb clzero cmov cx16 cx8 enqcmd f16c fma fma4 fsgsbase fxsr"
    " gfni hle lahf_lm lwp mmx mmxext monitorx movbe movdir64b movdiri mwaitx ospke pclmulqdq pku "
    "pni"
    " popcnt ptwrite rdpid rdpru rdrand rdseed rdtscp rtm serialize sha512 sha_ni sm3 sm4 sse sse2"
    " sse4_1 sse4_2 sse4a ssse3 tbm tsxldtrk uintr user_shstk vaes vpclmulqdq waitpkg wbnoinvd "
    "xgetbv1"
    " xop xsave xsavec xsaveopt ";

bool adds_instructions(std::string_view name) {
  return kInstructionFeatures.find(" " + std::string{name} + " ") != std::string_view::npos;
}

}  // namespace

XsaveLayout xsave_layout() {
  XsaveLayout layout;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(0xd, 0, &eax, &ebx, &ecx, &edx) == 0) return layout;
  layout.size_bytes = ebx;
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  layout.components = std::uint64_t{high} << 32 | low;
  for (unsigned i = 2; i < 63; ++i) {
    if ((layout.components >> i & 1) == 0) continue;
    __get_cpuid_count(0xd, i, &eax, &ebx, &ecx, &edx);
    layout.offsets[i] = ebx;
  }
  return layout;
}

std::vector<std::string> instruction_features() {
  const std::string text = read_until("/proc/cpuinfo", "\nflags");
  std::vector<std::string> names;
  const std::size_t line = text.find("\nflags");
  if (line == std::string::npos) return names;
  std::size_t at = text.find(':', line) + 1;
  const std::size_t end = std::min(text.find('\n', at), text.size());
  while (at < end) {
    const std::size_t blank = std::min(text.find(' ', at), end);
    std::string name = text.substr(at, blank - at);
    if (!name.empty() && adds_instructions(name)) names.push_back(std::move(name));
    at = blank + 1;
  }
  std::ranges::sort(names);
  return names;
}

unsigned usable_cpus() {
  ::cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return static_cast<unsigned>(std::max(1, CPU_COUNT(&set)));
}

}  // namespace icecore::sys
