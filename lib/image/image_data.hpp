// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/image.hpp>

#include <filesystem>

#include "image/image_reader.hpp"
#include "image/mapped_file.hpp"

namespace icecore {

/// An opened image: its bytes, and what they say.
struct Image::Data {
  std::filesystem::path path;
  MappedFile file;
  ImageReader reader;  // refers to the bytes of `file`
};

}  // namespace icecore
