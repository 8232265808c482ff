// SPDX-License-Identifier: Apache-2.0
//
// Where a bench keeps its images, and how it reads what icecore reports.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

#include "process.hpp"

namespace bench {

/// A number in a flat JSON object, as `icecore --json` prints it.
inline double number_in(const std::string& json, const std::string& field) {
  const std::size_t at = json.find("\"" + field + "\":");
  if (at == std::string::npos) throw std::runtime_error{"no " + field + " in " + json};
  return std::stod(json.substr(at + field.size() + 3));
}

/// A folder that is removed at the end.
class Workplace {
 public:
  explicit Workplace(const std::filesystem::path& where) {
    std::string name = where / "icecore-bench-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) must(-1, name);
    path_ = name;
  }
  Workplace(const Workplace&) = delete;
  Workplace& operator=(const Workplace&) = delete;
  ~Workplace() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace bench
