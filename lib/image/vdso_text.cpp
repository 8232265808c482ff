// SPDX-License-Identifier: Apache-2.0
//
// What replaces a function fits in 13 bytes; the compiler aligns functions to 16.  r11 and rax may
// change in any call.
#include "image/vdso_text.hpp"

#include <gelf.h>
#include <libelf.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

namespace icecore {
namespace {

using Functions = std::map<std::string, std::uint64_t>;
using Code = std::array<std::uint8_t, 13>;

struct StandIn {
  const char* function;
  std::uint32_t system_call;
};
constexpr std::array kStandIns{
    StandIn{"__vdso_clock_gettime", SYS_clock_gettime},
    StandIn{"__vdso_clock_getres", SYS_clock_getres},
    StandIn{"__vdso_gettimeofday", SYS_gettimeofday},
    StandIn{"__vdso_time", SYS_time},
    StandIn{"__vdso_getcpu", SYS_getcpu},
    StandIn{"__vdso_getrandom", SYS_getrandom},
};

const StandIn* stand_in(const std::string& function) {
  const auto* found = std::ranges::find(kStandIns, function, &StandIn::function);
  return found == kStandIns.end() ? nullptr : found;
}

/// movabs $address, %r11; jmp *%r11
Code jump_to(std::uint64_t address) {
  Code code{0x49, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 0x41, 0xff, 0xe3};
  std::memcpy(&code[2], &address, sizeof address);
  return code;
}

/// mov $number, %eax; syscall; ret; and int3
Code system_call(std::uint32_t number) {
  Code code{0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc};
  std::memcpy(&code[1], &number, sizeof number);
  return code;
}

void add_symbols(Elf* elf, Elf_Scn* section, std::uint64_t size_bytes, Functions& functions) {
  GElf_Shdr header;
  if (::gelf_getshdr(section, &header) == nullptr || header.sh_type != SHT_DYNSYM) return;
  Elf_Data* const data = ::elf_getdata(section, nullptr);
  GElf_Sym symbol;
  for (int i = 0; data != nullptr && ::gelf_getsym(data, i, &symbol) != nullptr; ++i) {
    const char* const name = ::elf_strptr(elf, header.sh_link, symbol.st_name);
    if (name == nullptr || std::strncmp(name, "__vdso_", 7) != 0 || symbol.st_shndx == SHN_UNDEF)
      continue;
    if (symbol.st_value > size_bytes || size_bytes - symbol.st_value < sizeof(Code)) continue;
    functions[name] = symbol.st_value;
  }
}

bool overlap(const Functions& functions) {
  std::vector<std::uint64_t> offsets;
  for (const auto& [name, offset] : functions) offsets.push_back(offset);
  std::ranges::sort(offsets);
  return std::ranges::adjacent_find(offsets, [](std::uint64_t one, std::uint64_t next) {
           return next != one && next - one < sizeof(Code);
         }) != offsets.end();
}

}  // namespace

std::map<std::string, std::uint64_t> vdso_functions(std::span<const std::uint8_t> text) {
  ::elf_version(EV_CURRENT);
  std::vector<char> copy{text.begin(), text.end()};  // libelf wants it writable
  const std::unique_ptr<Elf, int (*)(Elf*)> elf{::elf_memory(copy.data(), copy.size()), ::elf_end};
  Functions functions;
  if (!elf || ::elf_kind(elf.get()) != ELF_K_ELF) return functions;
  for (Elf_Scn* section = nullptr; (section = ::elf_nextscn(elf.get(), section)) != nullptr;)
    add_symbols(elf.get(), section, text.size(), functions);
  return overlap(functions) ? Functions{} : functions;
}

std::vector<std::string> function_names(const Functions& functions) {
  std::vector<std::string> names;
  for (const auto& [name, offset] : functions) names.push_back(name);
  return names;
}

std::vector<std::string> stranded_functions(const std::vector<std::string>& old,
                                            const std::vector<std::string>& here) {
  std::vector<std::string> stranded;
  for (const std::string& name : old)
    if (std::ranges::find(here, name) == here.end() && stand_in(name) == nullptr)
      stranded.push_back(name);
  return stranded;
}

std::vector<std::uint8_t> lead_to(std::span<const std::uint8_t> old,
                                  std::span<const std::uint8_t> here, std::uint64_t address) {
  const Functions targets = vdso_functions(here);
  std::vector<std::uint8_t> text{old.begin(), old.end()};
  for (const auto& [name, offset] : vdso_functions(old)) {
    const auto target = targets.find(name);
    const StandIn* const instead = stand_in(name);
    if (target == targets.end() && instead == nullptr) continue;
    const Code code = target == targets.end() ? system_call(instead->system_call)
                                              : jump_to(address + target->second);
    std::ranges::copy(code, text.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  return text;
}

}  // namespace icecore
