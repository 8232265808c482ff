// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <filesystem>
#include <iostream>
#include <string>

#include "support/descriptor.hpp"

namespace test {

/// A fresh folder, removed at the end; kept, and named, when the test fails.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = std::filesystem::temp_directory_path() / "icecore-test-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) must(-1, "mkdtemp");
    path_ = name;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    if (std::uncaught_exceptions() > exceptions_before_) {
      std::cerr << "kept: ls -la " << path_ << std::endl;
      return;
    }
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
  int exceptions_before_ = std::uncaught_exceptions();
};

}  // namespace test
