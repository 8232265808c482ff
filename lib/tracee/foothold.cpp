// SPDX-License-Identifier: Apache-2.0
#include "tracee/foothold.hpp"

#include <elf.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>

#include "icecore/error.hpp"
#include "tracee/batch.hpp"
#include "tracee/remote_syscalls.hpp"

namespace icecore {
namespace {

constexpr std::size_t kAlignment = 64;

constexpr std::size_t up(std::size_t bytes) { return (bytes + kAlignment - 1) & ~(kAlignment - 1); }

std::size_t context_offset() { return up(loop_code().size()); }
std::size_t room_bytes() { return context_offset() + kContextBytes; }

/// Where the ELF file in `image` ends, and the memory behind it belongs to nobody; its size when it
/// does not say so.
std::size_t end_of_elf(std::span<const std::byte> image) {
  if (image.size() < sizeof(Elf64_Ehdr)) return image.size();
  Elf64_Ehdr header;
  std::memcpy(&header, image.data(), sizeof header);
  const std::uint64_t sections = std::uint64_t{header.e_shnum} * header.e_shentsize;
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_shoff > image.size() ||
      sections > image.size() - header.e_shoff ||
      (sections != 0 && header.e_shentsize != sizeof(Elf64_Shdr)))
    return image.size();
  std::uint64_t end = header.e_shoff + sections;
  for (std::uint64_t at = header.e_shoff; at < header.e_shoff + sections;
       at += sizeof(Elf64_Shdr)) {
    Elf64_Shdr section;
    std::memcpy(&section, image.data() + at, sizeof section);
    if (section.sh_type == SHT_NOBITS) continue;
    if (section.sh_offset > image.size() || section.sh_size > image.size() - section.sh_offset)
      return image.size();
    end = std::max(end, section.sh_offset + section.sh_size);
  }
  return end;
}

/// Not used, or used by an icecore that was killed.
bool is_free(std::span<const std::byte> room) {
  const auto code = room.first(loop_code().size());
  return std::ranges::equal(code, loop_code()) ||
         std::ranges::all_of(room, [](std::byte byte) { return byte == std::byte{0}; });
}

std::uint64_t find_syscall_instruction(const sys::RemoteMemory& memory,
                                       const std::vector<sys::Vma>& vmas) {
  constexpr std::string_view kSyscall{"\x0f\x05", 2};
  for (const sys::Vma& vma : vmas) {
    if ((vma.protection & 4) == 0 || vma.name == "[vsyscall]") continue;
    std::string text(std::min<std::uint64_t>(vma.size(), 4 << 20), '\0');
    if (!memory.try_read(vma.start, std::as_writable_bytes(std::span{text}))) continue;
    if (const std::size_t at = text.find(kSyscall); at != std::string::npos) return vma.start + at;
  }
  throw Error{Errc::unsupported,
              "the process cannot be snapshotted:",
              {"its memory has no system call instruction"}};
}

}  // namespace

Foothold::Foothold(const sys::RemoteMemory& memory, const std::vector<sys::Vma>& vmas,
                   int report_signal)
    : memory_(memory), report_signal_(report_signal) {
  const auto vdso = std::ranges::find(vmas, "[vdso]", &sys::Vma::name);
  if (vdso != vmas.end()) find_room(*vdso);
  if (room_ == 0) syscall_instruction_ = find_syscall_instruction(memory, vmas);
}

void Foothold::find_room(const sys::Vma& vdso) {
  std::vector<std::byte> image(vdso.size());
  if (!memory_.try_read(vdso.start, image)) return;
  const std::size_t at = up(end_of_elf(image));
  if (at > image.size() || room_bytes() > image.size() - at) return;
  if (!is_free(std::span{image}.subspan(at, room_bytes()))) return;
  try {
    memory_.write(vdso.start + at, loop_code());
    room_ = vdso.start + at;
  } catch (const Error&) {
    // A kernel that does not let even a tracer write to a read-only mapping
    // (proc_mem.force_override).
  }
}

Foothold::~Foothold() {
  if (room_ == 0) return;
  try {
    clear(memory_);
  } catch (const Error&) {
    // The process has died, and its memory with it.
  }
}

void Foothold::clear(const sys::RemoteMemory& copy) const {
  copy.write(room_, std::vector<std::byte>(room_bytes()));
}

std::int64_t Foothold::call(Tracee& thread, long number,
                            std::initializer_list<std::uint64_t> arguments) {
  if (room_ == 0) return call_bare(thread, number, arguments);
  return call_at(icecore_batch_single, thread, number, arguments);
}

std::int64_t Foothold::copy_process(Tracee& thread, std::uint64_t flags) {
  if (room_ == 0) return -ENOSYS;
  return call_at(icecore_batch_copy, thread, SYS_clone, {flags, 0, 0, 0, 0});
}

std::int64_t Foothold::call_at(const std::byte* code, Tracee& thread, long number,
                               std::initializer_list<std::uint64_t> arguments) {
  const pid_t pid = thread.inner_tid();  // only leaders make these calls
  const BatchContext context = recovery_context(thread, pid, report_signal_);
  memory_.write(room_ + context_offset(), std::as_bytes(std::span{&context, 1}));
  const auto entry = static_cast<std::uint64_t>(code - icecore_batch_begin);
  sys::Registers registers = entering_kernel(thread, room_ + entry, number, arguments);
  registers.r12 = room_ + context_offset();
  thread.disturb(registers, ~only(report_signal_));
  if (!sys::resume(thread.tid())) throw_gone(thread);
  wait_for_report(thread, pid, report_signal_);
  return static_cast<std::int64_t>(sys::registers(thread.tid()).r15);
}

std::int64_t Foothold::call_bare(Tracee& thread, long number,
                                 std::initializer_list<std::uint64_t> arguments) {
  const std::int64_t result = single_syscall(thread, syscall_instruction_, number, arguments);
  stop_before_user_code(thread);
  return result;
}

}  // namespace icecore
