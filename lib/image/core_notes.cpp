// SPDX-License-Identifier: Apache-2.0
#include "image/core_notes.hpp"

#include <elf.h>
#include <signal.h>
#include <sys/procfs.h>
#include <sys/user.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "image/page_run.hpp"
#include "image/state_generated.h"

namespace icecore {
namespace {

constexpr char kCore[] = "CORE";
constexpr char kLinux[] = "LINUX";

// The legacy part of the XSAVE area is what fxsave writes.  In its last bytes, which the CPU leaves
// alone, the kernel tells readers of NT_X86_XSTATE which components the area has room for.
constexpr std::size_t kFxsaveBytes = sizeof(user_fpregs_struct);
constexpr std::size_t kXfeaturesOffset = 464;
static_assert(kFxsaveBytes == 512);
static_assert(sizeof(elf_prstatus) == 336 && sizeof(elf_prpsinfo) == 136);
static_assert(sizeof(elf_gregset_t) == sizeof(user_regs_struct));

template <class Struct>
std::span<const std::byte> bytes_of(const Struct& value) {
  return std::as_bytes(std::span{&value, 1});
}

void append_prstatus(Bytes& out, const state::ProcessT& process, const state::ThreadT& thread) {
  elf_prstatus status{};
  status.pr_pid = thread.tid;
  status.pr_pgrp = process.group;
  status.pr_sid = process.session;
  status.pr_sighold = thread.signal_mask;
  status.pr_fpvalid = 1;
  std::memcpy(&status.pr_reg, thread.registers.data(),
              std::min(sizeof status.pr_reg, thread.registers.size()));
  append_note(out, kCore, NT_PRSTATUS, bytes_of(status));
}

void append_prpsinfo(Bytes& out, const state::ProcessT& process) {
  elf_prpsinfo info{};
  info.pr_sname = 'R';
  info.pr_nice = static_cast<char>(process.threads.front()->nice);
  info.pr_pid = process.pid;
  info.pr_pgrp = process.group;
  info.pr_sid = process.session;
  process.name.copy(info.pr_fname, sizeof info.pr_fname - 1);
  const auto executable = static_cast<std::size_t>(process.address_space->executable);
  process.files[executable]->path.copy(info.pr_psargs, sizeof info.pr_psargs - 1);
  append_note(out, kCore, NT_PRPSINFO, bytes_of(info));
}

// All zero: no signal ended the process.
void append_siginfo(Bytes& out) {
  append_note(out, kCore, NT_SIGINFO, std::array<std::byte, sizeof(siginfo_t)>{});
}

// Counts and offsets in pages, then one name for each range.
void append_file_mappings(Bytes& out, const state::ProcessT& process) {
  std::vector<std::uint64_t> numbers{0, kPageSize};
  std::string names;
  for (const state::Mapping& mapping : process.address_space->mappings) {
    if (mapping.kind() != state::MappingKind::file) continue;
    ++numbers.front();
    numbers.insert(numbers.end(), {mapping.start(), mapping.end(), mapping.offset() / kPageSize});
    names += process.files[static_cast<std::size_t>(mapping.file())]->path;
    names += '\0';
  }
  Bytes descriptor;
  append(descriptor, std::as_bytes(std::span{numbers}));
  append(descriptor, std::as_bytes(std::span{names}));
  append_note(out, kCore, NT_FILE, descriptor);
}

void append_floating_point(Bytes& out, const state::PlatformT& platform,
                           const state::ThreadT& thread) {
  std::vector<std::uint8_t> xstate = thread.xstate;
  append_note(out, kCore, NT_FPREGSET, std::as_bytes(std::span{xstate}).first(kFxsaveBytes));

  std::uint64_t xfeatures;
  std::memcpy(&xfeatures, &xstate[kXfeaturesOffset], sizeof xfeatures);
  if (xfeatures == 0)
    std::memcpy(&xstate[kXfeaturesOffset], &platform.xfeatures, sizeof platform.xfeatures);
  append_note(out, kLinux, NT_X86_XSTATE, std::as_bytes(std::span{xstate}));
}

}  // namespace

void append_core_notes(Bytes& out, const state::ManifestT& manifest) {
  const state::ProcessT& process = *manifest.process;
  for (const auto& thread : process.threads) {
    const bool is_first = thread == process.threads.front();
    append_prstatus(out, process, *thread);
    if (is_first) append_prpsinfo(out, process);
    append_siginfo(out);
    if (is_first) {
      append_note(out, kCore, NT_AUXV, std::as_bytes(std::span{process.address_space->auxv}));
      append_file_mappings(out, process);
    }
    append_floating_point(out, *manifest.platform, *thread);
  }
}

}  // namespace icecore
