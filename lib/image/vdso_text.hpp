// SPDX-License-Identifier: Apache-2.0
#pragma once

// The vdso of another kernel: a small ELF library whose entry points a program may have kept.

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace icecore {

/// The functions that a vdso offers to programs ("__vdso_…"), as offsets in its text.  Empty when
/// the text is no such library; every offset leaves room for a jump.
std::map<std::string, std::uint64_t> vdso_functions(std::span<const std::uint8_t> text);

/// Their names, sorted.
std::vector<std::string> function_names(const std::map<std::string, std::uint64_t>& functions);

/// Functions of `old` that neither `here` has nor a system call can stand in for.
std::vector<std::string> stranded_functions(const std::vector<std::string>& old,
                                            const std::vector<std::string>& here);

/// The text `old` with every function replaced by a jump to the one of the same name in the vdso
/// `here` that lies at `address`, or by the system call that does the same.
std::vector<std::uint8_t> lead_to(std::span<const std::uint8_t> old,
                                  std::span<const std::uint8_t> here, std::uint64_t address);

}  // namespace icecore
