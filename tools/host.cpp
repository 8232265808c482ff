// SPDX-License-Identifier: Apache-2.0
//
// icecore host: what this machine offers to restored processes, for `check --host` and `fleet`.
#include <fmt/format.h>
#include <icecore/error.hpp>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include "command.hpp"
#include "host_file.hpp"

namespace icecore::tool {

Host read_host_file(const std::string& path) {
  if (std::error_code ignored; std::filesystem::is_directory(path, ignored))
    throw Error{
        Errc::io,
        fmt::format("read {}: is a folder; name a file that `icecore host` has written", path),
        EISDIR};
  std::ifstream file{path};
  const std::string text{std::istreambuf_iterator<char>{file}, {}};
  if (!file.is_open() || file.bad())
    throw Error{Errc::io, fmt::format("read {}: {}", path, ::strerrordesc_np(errno)), errno};
  try {
    return read_host(text);
  } catch (const Error& error) {
    throw Error{error.code(), fmt::format("{}: {}", path, error.what())};
  }
}

namespace {

class HostCommand final : public Invocation {
 public:
  explicit HostCommand(CLI::App&) { json = true; }

  int run() override {
    fmt::print("{}\n", to_json(this_host()));
    return 0;
  }
};

}  // namespace

const Command kHost{
    .name = "host",
    .summary = "Print what this machine offers to restored processes, as JSON",
    .failure_status = 1,
    .declare = declare<HostCommand>,
};

}  // namespace icecore::tool
