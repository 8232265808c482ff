// SPDX-License-Identifier: Apache-2.0
#include "compat/baseline.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "icecore/error.hpp"
#include "icecore/host.hpp"
#include "sys/cpu.hpp"

namespace icecore {
namespace {

/// What each level adds of that which the libraries choose by.
constexpr std::string_view kAddedByV3 = " avx avx2 bmi1 bmi2 f16c fma abm movbe ";
constexpr std::string_view kAddedByV4 = " avx512f avx512bw avx512cd avx512dq avx512vl ";
constexpr std::string_view kBeyondV4 =
    " fma4 xop vaes vpclmulqdq gfni avx_ifma avx_ne_convert avx_vnni avx_vnni_int16 avx_vnni_int8"
    " amx_bf16 amx_complex amx_fp16 amx_int8 amx_tile sha512 sm3 sm4 ";

int level_of(std::string_view baseline) {
  if (baseline.empty()) return 0;
  if (baseline == "x86-64-v2") return 2;
  if (baseline == "x86-64-v3") return 3;
  if (baseline == "x86-64-v4") return 4;
  throw Error{Errc::invalid_argument,
              fmt::format("CPU baseline {}: is not x86-64-v2, x86-64-v3 or x86-64-v4", baseline)};
}

bool lists(std::string_view names, const std::string& name) {
  return names.find(" " + name + " ") != std::string_view::npos;
}

int level_that_adds(const std::string& feature) {
  if (lists(kAddedByV3, feature)) return 3;
  if (lists(kAddedByV4, feature)) return 4;
  return lists(kBeyondV4, feature) || feature.starts_with("avx512") ? 5 : 2;
}

/// glibc's names for what it is to leave unused; it ignores names that it does not know.
std::string glibc_tunables(int level) {
  std::string mask =
      "-AVX512_VNNI,-AVX512_BF16,-AVX512_FP16,-AVX512_VBMI,-AVX512_VBMI2,-AMX_TILE,"
      "-AMX_INT8,-AMX_BF16,-VAES,-VPCLMULQDQ,-AVX_VNNI";
  if (level < 4) mask += ",-AVX512F,-AVX512VL,-AVX512BW,-AVX512CD,-AVX512DQ";
  if (level < 3) mask += ",-AVX,-AVX2,-FMA,-F16C,-BMI1,-BMI2,-LZCNT,-MOVBE,-FMA4,-XOP";
  return "glibc.cpu.hwcaps=" + mask;
}

/// What OpenSSL is to take for absent: bits of CPUID leaf 1 (EDX, ECX) and of leaf 7 (EBX, ECX).
std::string openssl_capabilities(int level) {
  constexpr std::uint64_t kAvxFmaXop = 0x1000180000000000;
  constexpr std::uint64_t kAvx2Bmi = 0x128;
  constexpr std::uint64_t kAvx512 = 0xd0030000;
  constexpr std::uint64_t kBeyond = 0x5f4200200000;  // IFMA, VBMI, GFNI, VAES, VPCLMULQDQ, VNNI …
  const std::uint64_t leaf1 = level < 3 ? kAvxFmaXop : 0;
  const std::uint64_t leaf7 = kBeyond | (level < 4 ? kAvx512 : 0) | (level < 3 ? kAvx2Bmi : 0);
  return fmt::format("~{:#x}:~{:#x}", leaf1, leaf7);
}

/// NumPy's own names of what it can do without, as far as this CPU has them: it warns of others.
std::string numpy_features(int level) {
  struct Name {
    const char* numpy;
    const char* cpuinfo;
    int level;
  };
  constexpr std::array kNames{Name{"AVX", "avx", 3},
                              Name{"F16C", "f16c", 3},
                              Name{"FMA3", "fma", 3},
                              Name{"AVX2", "avx2", 3},
                              Name{"AVX512F", "avx512f", 4},
                              Name{"AVX512CD", "avx512cd", 4},
                              Name{"AVX512_SKX", "avx512vl", 4},
                              Name{"AVX512_CLX", "avx512_vnni", 5},
                              Name{"AVX512_CNL", "avx512vbmi", 5},
                              Name{"AVX512_ICL", "avx512_vbmi2", 5}};
  const auto features = sys::instruction_features();
  std::string text;
  for (const Name& name : kNames)
    if (name.level > level && std::ranges::binary_search(features, name.cpuinfo))
      text += (text.empty() ? "" : " ") + std::string{name.numpy};
  return text;
}

}  // namespace

void check_baseline(std::string_view baseline) { level_of(baseline); }

std::vector<std::string> features_within(std::string_view baseline,
                                         std::vector<std::string> features) {
  const int level = level_of(baseline);
  if (level != 0)
    std::erase_if(features, [&](const std::string& name) { return level_that_adds(name) > level; });
  return features;
}

std::vector<std::string> baseline_environment(std::string_view baseline) {
  const int level = level_of(baseline);
  if (level == 0) return {};
  const auto pick = [&](const char* v2, const char* v3, const char* v4) {
    return std::string{level == 2 ? v2 : level == 3 ? v3 : v4};
  };
  std::vector<std::string> variables{
      "GLIBC_TUNABLES=" + glibc_tunables(level),
      "OPENBLAS_CORETYPE=" + pick("Nehalem", "Haswell", "SkylakeX"),
      "ONEDNN_MAX_CPU_ISA=" + pick("SSE41", "AVX2", "AVX512_CORE"),
      "DNNL_MAX_CPU_ISA=" + pick("SSE41", "AVX2", "AVX512_CORE"),
      "ATEN_CPU_CAPABILITY=" + pick("default", "avx2", "avx512"),
      "OPENSSL_ia32cap=" + openssl_capabilities(level),
  };
  if (const std::string numpy = numpy_features(level); !numpy.empty())
    variables.push_back("NPY_DISABLE_CPU_FEATURES=" + numpy);
  return variables;
}

}  // namespace icecore
