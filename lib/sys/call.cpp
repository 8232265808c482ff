// SPDX-License-Identifier: Apache-2.0
#include "sys/call.hpp"

#include <cstring>

namespace icecore::sys {
namespace {

Errc code_of(int err) {
  switch (err) {
    case EPERM:
    case EACCES:
      return Errc::permission;
    case ESRCH:
      return Errc::target_gone;
    default:
      return Errc::io;
  }
}

}  // namespace

void throw_errno(int err, const std::string& subject) {
  throw Error{code_of(err), fmt::format("{}: {}", subject, ::strerrordesc_np(err)), err};
}

}  // namespace icecore::sys
