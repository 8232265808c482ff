// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/export.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace icecore {

/// A file or folder whose contents decide what a program is after its start.
struct Dependency {
  std::string path;    ///< absolute
  std::string digest;  ///< of the contents, hexadecimal; "absent" where there is nothing
  /// Sizes, times and inode numbers: where these are the same, the contents are not read again.
  std::string signature;
};

/// How a program is started, as far as it decides what a snapshot of it holds.
struct StartedAs {
  std::vector<std::string> command;
  std::string working_directory;
  std::vector<std::string> variables;  ///< "NAME=VALUE", or "NAME" where it is not set; in order
  std::string cpu_baseline;
  std::vector<Dependency> dependencies;
};

/// Fills in a dependency but for its digest, which takes time: see complete().
ICECORE_EXPORT Dependency depend_on(const std::filesystem::path& path);

/// Reads the contents of dependencies that have no digest yet.  Returns the path of one that has
/// changed since depend_on(), and empty when none has.
ICECORE_EXPORT std::string complete(std::vector<Dependency>& dependencies);

/// One image in a store.
struct StoreEntry {
  std::string key;
  std::string name;  ///< within its key; a later one is greater
  std::filesystem::path image;
  std::string image_identity;
  std::uint64_t image_bytes = 0;
  std::uint64_t working_set_bytes = 0;

  std::chrono::sys_seconds made_at{};
  std::string made_by;      ///< "icecore 0.1.0"
  std::string made_on;      ///< name of the machine
  std::string worker_type;  ///< of that machine: Host::worker_type
  StartedAs started;

  std::uint64_t restores = 0;
  std::chrono::sys_seconds used_at{};  ///< last restore; the epoch: never
  std::string last_failure;            ///< of a restore; empty: none
  std::chrono::sys_seconds failed_at{};
  bool set_aside = false;  ///< because of it; such an image is not found any more
};

/// What an image must be made of to be the right one.
struct Wanted {
  StartedAs started;        ///< digests need not be there
  std::string worker_type;  ///< images of this one come first; others may do as well
  std::optional<std::chrono::seconds> max_age;
};

/// Why an image is not the one that is wanted, for people; empty when it is.
ICECORE_EXPORT std::string why_unfit(const StoreEntry& entry, const Wanted& wanted);

/// Images by key, in a folder that may be copied, served and backed up while it is in use.
///
/// Every change is one rename or one unlink: a crash at any moment leaves a store that can be used,
/// with at worst a file in it that collect() removes.  May be used by any number of processes and
/// threads at once. Everything throws Errc::io or Errc::permission; a store of a newer format is
/// Errc::incompatible.
class ICECORE_EXPORT Store {
 public:
  /// Makes the folder when there is none.
  static Store open(const std::filesystem::path& folder);

  /// A store that has room for one image, in this file, with its entry beside it.
  static Store single(const std::filesystem::path& image);

  /// Those that fit, the best first.
  std::vector<StoreEntry> find(const std::string& key, const Wanted& wanted) const;

  /// Everything, by key and age; those set aside too.  What cannot be read is left out.
  std::vector<StoreEntry> list() const;
  std::vector<StoreEntry> list(const std::string& key) const;

  /// A place for a new image.  Nothing is seen of it until commit(); destroyed without, it is gone,
  /// and what it was to replace in a single file is left if nothing has been written.
  class ICECORE_EXPORT NewImage {
   public:
    NewImage(NewImage&&) noexcept;
    NewImage& operator=(NewImage&&) = delete;
    ~NewImage();

    /// Where snapshot() is to write it.
    std::filesystem::path path() const;

    /// Key, name, place and the sizes of `entry` are filled in.
    void commit(StoreEntry entry);

   private:
    friend class Store;
    struct State;
    explicit NewImage(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
  };

  /// Nothing when somebody else is making an image of this key at the moment.  Throws
  /// Errc::invalid_argument where a single file is there already and is no image.
  std::optional<NewImage> begin(const std::string& key) const;

  /// Counts a restore.
  void note_restore(const StoreEntry& entry) const;

  /// Keeps the reason; an image that is set aside is not found any more.
  void note_failure(const StoreEntry& entry, const std::string& reason, bool set_aside) const;

  /// Why no image of this key could be made.  True when that is not what was noted before, numbers
  /// apart: process ids and names of files that were to be made differ each time.
  bool note_refusal(const std::string& key, const std::string& reason) const;
  std::string refusal(const std::string& key) const;

  void remove(const StoreEntry& entry) const;

  struct Limits {
    std::optional<std::uint64_t> keep;  ///< images of one key and worker type
    std::optional<std::chrono::seconds> max_age;
    std::optional<std::uint64_t> max_bytes;  ///< of all; the least recently used go first
  };
  struct Collected {
    std::vector<StoreEntry> removed;
    std::uint64_t removed_bytes = 0;  ///< with what was left behind by crashes
    std::uint64_t left_bytes = 0;
  };
  /// Removes what exceeds the limits, what was set aside, and what crashes have left.
  Collected collect(const Limits& limits) const;

  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  Store(std::filesystem::path path, bool single) : path_(std::move(path)), single_(single) {}

  ICECORE_NO_EXPORT std::filesystem::path refusal_file(const std::string& key) const;

  std::filesystem::path path_;
  bool single_;
};

}  // namespace icecore
