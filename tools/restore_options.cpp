// SPDX-License-Identifier: Apache-2.0
#include "restore_options.hpp"

#include <charconv>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

namespace icecore::tool {
namespace {

const std::map<std::string, Pids> kPids{
    {"auto", Pids::automatic}, {"same", Pids::same}, {"namespace", Pids::in_namespace}};

std::optional<int> parse_number(std::string_view text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number < 0) return std::nullopt;
  return number;
}

/// "N=PATH", "N=fd:M" or "N=close".
std::optional<std::pair<int, External>> parse_external(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals + 1 == text.size()) return std::nullopt;
  const auto number = parse_number(text.substr(0, equals));
  const std::string_view target = text.substr(equals + 1);
  if (!number) return std::nullopt;

  if (target == "close") return {{*number, External{External::Close{}}}};
  if (!target.starts_with("fd:")) return {{*number, External{std::filesystem::path{target}}}};
  const auto ours = parse_number(target.substr(3));
  if (!ours) return std::nullopt;
  return {{*number, External{*ours}}};
}

std::string check_external(const std::string& text) {
  return parse_external(text) ? std::string{} : text + " is not N=PATH, N=fd:M or N=close";
}

}  // namespace

RestoreChoices::RestoreChoices(CLI::App& app) {
  app.add_option(
         "--pids", pids_,
         "Process ids: the old ones if free, else in a pid namespace (auto); the old ones or "
         "nothing (same); in a pid namespace (namespace)")
      ->option_text("auto|same|namespace")
      ->check([](const std::string& text) {
        return kPids.contains(text) ? std::string{} : text + " is not auto, same or namespace";
      });
  app.add_option("--external", externals_,
                 "What takes the place of descriptor N, which led outside the process: a path to "
                 "open, our own descriptor M, or nothing; may be repeated")
      ->option_text("N=PATH|fd:M|close")
      ->allow_extra_args(false)
      ->check(check_external);
  app.add_option("--gpu-map", gpu_map_,
                 "The GPU that takes the place of one of the snapshot's, by UUID; may be repeated")
      ->option_text("OLD=NEW")
      ->allow_extra_args(false)
      ->check([](const std::string& text) {
        return text.find('=') == text.npos ? text + " is not OLD=NEW" : std::string{};
      });
}

void add_tcp_option(CLI::App& app, TcpConnections& chosen, const std::string& description) {
  app.add_option("--tcp", chosen, description)
      ->option_text("refuse|close|established")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, TcpConnections>{{"refuse", TcpConnections::refuse},
                                                {"close", TcpConnections::close},
                                                {"established", TcpConnections::established}},
          CLI::ignore_case));
}

RestoreOptions RestoreChoices::options() const {
  RestoreOptions options{.pids = kPids.at(pids_)};
  for (const std::string& text : externals_) {
    auto [number, external] = parse_external(text).value();
    options.external.insert_or_assign(number, std::move(external));
  }
  for (const std::string& text : gpu_map_) {
    const std::size_t equals = text.find('=');
    options.gpu_map.insert_or_assign(text.substr(0, equals), text.substr(equals + 1));
  }
  return options;
}

}  // namespace icecore::tool
