// SPDX-License-Identifier: Apache-2.0
//
// Files and folders by what is in them.
#include "store/dependency.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

#include "sys/call.hpp"
#include "sys/files.hpp"

namespace icecore {
namespace {

constexpr const char* kAbsent = "absent";

class Hash {
 public:
  Hash() : state_(::XXH3_createState()) { ::XXH3_128bits_reset(state_.get()); }

  void add(std::string_view bytes) {
    ::XXH3_128bits_update(state_.get(), bytes.data(), bytes.size());
  }
  /// With its length, so that two texts one after the other are not a third.
  void add_text(std::string_view text) {
    const std::uint64_t size = text.size();
    ::XXH3_128bits_update(state_.get(), &size, sizeof size);
    add(text);
  }
  std::string text() const {
    const ::XXH128_hash_t hash = ::XXH3_128bits_digest(state_.get());
    return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
  }

 private:
  struct Free {
    void operator()(::XXH3_state_t* state) const { ::XXH3_freeState(state); }
  };
  std::unique_ptr<::XXH3_state_t, Free> state_;
};

void add_contents(const std::string& path, Hash& hash) {
  constexpr std::size_t kPiece = std::size_t{256} << 10;
  const sys::Fd file = sys::open_file(path, O_RDONLY);
  std::vector<char> piece(kPiece);
  while (const auto count = sys::checked(
             [&] { return ::read(file.get(), piece.data(), piece.size()); }, "read {}", path))
    hash.add({piece.data(), static_cast<std::size_t>(count)});
}

void add_signature(const std::filesystem::path& path, Hash& hash) {
  const sys::FileStatus status = sys::status_of_link(path);
  const std::array<std::uint64_t, 7> facts{
      status.st_dev,
      status.st_ino,
      status.st_mode,
      static_cast<std::uint64_t>(status.st_size),
      static_cast<std::uint64_t>(status.st_mtim.tv_sec),
      static_cast<std::uint64_t>(status.st_mtim.tv_nsec),
      static_cast<std::uint64_t>(status.st_ctim.tv_sec) * 1'000'000'000 +
          static_cast<std::uint64_t>(status.st_ctim.tv_nsec)};
  hash.add({reinterpret_cast<const char*>(facts.data()), sizeof facts});
}

/// Everything under a folder in one order; __pycache__ is left out, since whoever runs writes
/// there.
std::vector<std::filesystem::path> all_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> all;
  for (auto at = std::filesystem::recursive_directory_iterator{folder};
       at != std::filesystem::recursive_directory_iterator{}; ++at) {
    if (at->path().filename() == "__pycache__") {
      at.disable_recursion_pending();
      continue;
    }
    if (at->is_symlink() || !at->is_directory()) all.push_back(at->path());
  }
  std::ranges::sort(all);
  return all;
}

bool is_folder(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::is_directory(path, ignored);
}

std::string signature_of(const std::string& path) {
  if (!sys::try_status(path)) return kAbsent;
  Hash hash;
  if (is_folder(path)) {
    for (const auto& file : all_in(path)) {
      hash.add_text(file.native());
      add_signature(file, hash);
    }
  } else {
    add_signature(std::filesystem::canonical(path), hash);
  }
  return hash.text();
}

void add_entry(const std::filesystem::path& file, Hash& hash) {
  if (std::filesystem::is_symlink(file))
    hash.add_text("-> " + std::filesystem::read_symlink(file).native());
  else if (std::filesystem::is_regular_file(file))
    add_contents(file, hash);
}

std::string digest_of(const std::string& path) {
  if (!sys::try_status(path)) return kAbsent;
  Hash hash;
  if (is_folder(path)) {
    for (const auto& file : all_in(path)) {
      hash.add_text(file.lexically_relative(path).native());
      add_entry(file, hash);
    }
  } else if (std::filesystem::is_regular_file(path)) {
    add_contents(path, hash);
  }
  return hash.text();
}

/// Files can vanish while we look.
template <class Look>
std::string look_at(const std::string& path, Look look) {
  try {
    return look(path);
  } catch (const std::filesystem::filesystem_error& error) {
    const std::string& which = error.path1().empty() ? path : error.path1().native();
    throw Error{Errc::io, fmt::format("look at {}: {}", which, error.code().message()),
                error.code().value()};
  }
}

}  // namespace

Dependency depend_on(const std::filesystem::path& path) {
  const std::string absolute = look_at(path, [](const std::filesystem::path& relative) {
    return std::filesystem::absolute(relative).lexically_normal().native();
  });
  return {.path = absolute, .digest = {}, .signature = look_at(absolute, signature_of)};
}

std::string complete(std::vector<Dependency>& dependencies) {
  for (Dependency& dependency : dependencies) {
    if (!dependency.digest.empty()) continue;
    std::string digest = look_at(dependency.path, digest_of);
    // After reading: what changed meanwhile shows here too.
    if (look_at(dependency.path, signature_of) != dependency.signature) return dependency.path;
    dependency.digest = std::move(digest);
  }
  return {};
}

bool is_unchanged(const Dependency& known) {
  try {
    return look_at(known.path, signature_of) == known.signature ||
           look_at(known.path, digest_of) == known.digest;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace icecore
