// SPDX-License-Identifier: Apache-2.0
//
// The command lines of the benches.
#pragma once

#include <fmt/format.h>
#include <signal.h>

#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {

using Words = std::vector<std::string>;
using Flags = std::map<std::string, bool*>;
using Settings = std::map<std::string, std::function<void(const std::string&)>>;

/// Flags stand alone, settings have a word behind them.  Throws std::out_of_range or
/// std::invalid_argument for what it does not understand.
inline void parse_options(const Words& words, const Flags& flags, const Settings& settings) {
  for (auto word = words.begin(); word != words.end(); ++word) {
    if (const auto flag = flags.find(*word); flag != flags.end()) {
      *flag->second = true;
      continue;
    }
    const auto setting = settings.find(*word);
    if (setting == settings.end()) throw std::invalid_argument{*word};
    if (++word == words.end()) throw std::out_of_range{"a value is missing"};
    setting->second(*word);
  }
}

/// The main function of a bench: its exit status, 2 for wrong usage.
template <class Bench>
int run_bench(int argc, char** argv, const char* usage, const Bench& bench) {
  ::signal(SIGPIPE, SIG_IGN);
  try {
    return bench(Words{argv + 1, argv + argc});
  } catch (const std::logic_error& error) {
    fmt::print(stderr, "{}\n{}", error.what(), usage);
    return 2;
  }
}

}  // namespace bench
