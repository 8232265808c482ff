// SPDX-License-Identifier: Apache-2.0
#pragma once

// What else distinguishes machines.
//
// Facts relied on here:
//  * NVIDIA's kernel driver tells its version in /proc/driver/nvidia/version ("Kernel Module
//  550.54.15",
//    with the open modules "… for x86_64  550.54.15") and each GPU in gpus/*/information
//    ("Model:"). Both exist when the driver is loaded, whether or not this process may open a
//    device.

#include <cstdint>
#include <string>

namespace icecore::sys {

std::string machine_name();
std::string cpu_model();
std::uint64_t page_size_bytes();

struct Gpu {
  std::string model = "none";
  std::string driver;  ///< empty: none
};
/// The first one.
Gpu find_gpu();

}  // namespace icecore::sys
