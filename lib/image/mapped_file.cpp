// SPDX-License-Identifier: Apache-2.0
#include "image/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <utility>

#include "sys/call.hpp"
#include "sys/fd.hpp"

namespace icecore {

MappedFile::MappedFile(MappedFile&& other) noexcept
    : address_(std::exchange(other.address_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
  if (address_ != nullptr) ::munmap(const_cast<std::byte*>(address_), size_);
}

MappedFile MappedFile::open(const std::filesystem::path& path) {
  // O_NONBLOCK: a named pipe must be refused below, not waited for.
  const sys::Fd fd{
      sys::checked([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); },
                   "open {}", path.string())};
  struct stat file;
  sys::checked([&] { return ::fstat(fd.get(), &file); }, "open {}", path.string());
  if (S_ISDIR(file.st_mode)) sys::throw_errno(EISDIR, fmt::format("open {}", path.string()));
  if (!S_ISREG(file.st_mode))
    throw Error{Errc::io, fmt::format("open {}: not a regular file", path.string())};

  const auto size_bytes = static_cast<std::size_t>(file.st_size);
  if (size_bytes == 0) return {nullptr, 0};
  void* const address = ::mmap(nullptr, size_bytes, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (address == MAP_FAILED) sys::throw_errno(errno, fmt::format("map {}", path.string()));
  return {static_cast<const std::byte*>(address), size_bytes};
}

}  // namespace icecore
