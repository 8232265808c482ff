// SPDX-License-Identifier: Apache-2.0
//
// icecore-gpu: makes the calls of the CUDA driver for the library.  Started by it, never by hand.
#include "gpu/helper.hpp"

int main() { return icecore::gpu::run_helper(); }
