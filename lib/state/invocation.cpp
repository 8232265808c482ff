// SPDX-License-Identifier: Apache-2.0
#include "state/invocation.hpp"

#include <span>

#include "sys/files.hpp"

namespace icecore {
namespace {

constexpr const char* kName = "icecore invocation";
constexpr std::string_view kLink = "/memfd:icecore invocation";
constexpr int kLowestNumber = 200;

}  // namespace

std::string text_of(const Invocation& invocation) {
  std::string text;
  for (const std::string& variable : invocation.variables) text.append(variable).push_back('\0');
  text.push_back('\0');
  for (const std::string& argument : invocation.arguments) text.append(argument).push_back('\0');
  return text;
}

sys::Fd new_invocation_file(const Invocation& invocation) {
  sys::Fd file = sys::make_memfd(kName, false);
  const std::string text = text_of(invocation);
  sys::write_all(file, std::as_bytes(std::span{text}), 0);
  return file;
}

bool is_invocation_file(std::string_view link) { return link.starts_with(kLink); }

int make_invocation_file(const Invocation& invocation) {
  return sys::duplicate(new_invocation_file(invocation).get(), kLowestNumber).release();
}

}  // namespace icecore
