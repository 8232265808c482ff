// SPDX-License-Identifier: Apache-2.0
#include "icecore/error.hpp"

#include <utility>

namespace icecore {
namespace {

std::string with_reasons(const std::string& headline, const std::vector<std::string>& reasons) {
  std::string message = headline;
  for (const std::string& reason : reasons) message += "\n  " + reason;
  return message;
}

}  // namespace

Error::Error(Errc code, const std::string& message, int sys_errno)
    : std::runtime_error(message), code_(code), sys_errno_(sys_errno) {}

Error::Error(Errc code, const std::string& headline, std::vector<std::string> reasons)
    : std::runtime_error(with_reasons(headline, reasons)),
      code_(code),
      reasons_(std::move(reasons)) {}

Error::~Error() = default;

}  // namespace icecore
