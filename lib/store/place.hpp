// SPDX-License-Identifier: Apache-2.0
#pragma once

// Where in the file system the parts of a store are.

#include <filesystem>
#include <string>

#include "icecore/store.hpp"

namespace icecore {

/// The files of one image.  The entry decides: without it there is no image, whatever else is
/// there.
struct Place {
  std::filesystem::path image;

  std::filesystem::path working_set() const { return with(".ws"); }
  std::filesystem::path entry() const { return with(".entry"); }
  std::filesystem::path failure() const { return with(".failure"); }
  /// One byte for each restore, appended: counting needs neither a lock nor a reader.
  std::filesystem::path uses() const { return with(".uses"); }

 private:
  std::filesystem::path with(const char* suffix) const { return image.native() + suffix; }
};

/// STORE/keys/XX/DIGEST, with the digest of the key.
std::filesystem::path folder_of(const std::filesystem::path& store, const std::string& key);

/// The file that says what this folder is, and of which format.
std::filesystem::path format_file(const std::filesystem::path& store);

/// An entry as it is on disk.
std::string to_json(const StoreEntry& entry);

/// The entry of an image, or nothing when there is none, or none that this version can use.
std::optional<StoreEntry> read_entry(const Place& place);

/// There is none, or it is none; that of a newer icecore is neither.
bool is_damaged_entry(const Place& place);

}  // namespace icecore
