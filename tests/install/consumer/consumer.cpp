// SPDX-License-Identifier: Apache-2.0
//
// A program of somebody else: sees the installed headers and library only.  Opens an image that
// does not exist and must be able to catch the error.
#include <icecore/error.hpp>
#include <icecore/image.hpp>
#include <icecore/restore.hpp>
#include <icecore/snapshot.hpp>
#include <icecore/version.h>

#include <cerrno>
#include <cstdio>

static_assert(ICECORE_VERSION_MAJOR >= 0 && sizeof ICECORE_VERSION > 1);

int main() {
  try {
    icecore::Image::open("/nonexistent/image.icecore");
  } catch (const icecore::Error& error) {
    std::printf("%s\n", error.what());
    return error.code() == icecore::Errc::io && error.sys_errno() == ENOENT ? 0 : 1;
  }
  std::puts("no error");
  return 1;
}
