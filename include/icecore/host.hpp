// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/export.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace icecore {

/// What a machine offers to restored processes, as `icecore host` prints it.
struct Host {
  std::string icecore_version;
  std::string name;            ///< of the machine, for people
  std::string kernel_release;  ///< for people: what counts is the vdso
  std::string cpu_model;       ///< for people: what counts are the features
  std::string gpu = "none";    ///< model of the first GPU
  std::string gpu_driver;      ///< version; empty without GPU
  std::uint64_t page_size_bytes = 0;

  /// CPU features that add instructions, by their names in /proc/cpuinfo, sorted.  Those that only
  /// make something fast (erms) are left out: they make no snapshot unfit.
  std::vector<std::string> cpu_features;

  std::uint64_t xsave_size_bytes = 0;
  std::uint64_t xsave_components = 0;        ///< XCR0
  std::vector<std::uint64_t> xsave_offsets;  ///< of component 0 to 63; 0: there is none

  /// The kernel's pages in every process, as "[vdso] 8192" in the order of their addresses, and the
  /// digest of the code in them.
  std::vector<std::string> vdso_parts;
  std::string vdso_digest;
  /// What it offers to programs, sorted: an image of another kernel calls these by their names.
  std::vector<std::string> vdso_functions;

  /// 16 hexadecimal digits; the same on two machines exactly if all of the above but the first four
  /// is.
  std::string worker_type;
};

/// This machine.
ICECORE_EXPORT Host this_host();

/// One JSON object, which read_host() reads.
ICECORE_EXPORT std::string to_json(const Host& host);

/// Throws Errc::invalid_argument when it is not what to_json() writes.
ICECORE_EXPORT Host read_host(std::string_view json);

/// Machines that one snapshot serves.
struct FleetGroup {
  std::size_t snapshot_on = 0;       ///< index of the machine to take it on
  std::vector<std::size_t> members;  ///< indices, ascending; that machine among them
};

/// The fewest groups such that a snapshot taken on one machine of each can be restored on all of
/// it, as far as the machines decide that.
ICECORE_EXPORT std::vector<FleetGroup> group_fleet(const std::vector<Host>& hosts);

/// Variables, as "NAME=VALUE", that keep glibc, OpenBLAS, oneDNN, PyTorch, NumPy and OpenSSL from
/// using more of this CPU than "x86-64-v2", "x86-64-v3" or "x86-64-v4"; see
/// SnapshotOptions::cpu_baseline. Throws Errc::invalid_argument for any other.
ICECORE_EXPORT std::vector<std::string> baseline_environment(std::string_view baseline);

}  // namespace icecore
