// SPDX-License-Identifier: Apache-2.0
#include "image/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <utility>

#include "sys/call.hpp"

namespace icecore {

MappedFile::MappedFile(MappedFile&& other) noexcept
    : fd_(std::move(other.fd_)),
      address_(std::exchange(other.address_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
  if (address_ != nullptr) ::munmap(const_cast<std::byte*>(address_), size_);
}

MappedFile MappedFile::open(const std::filesystem::path& path) {
  // O_NONBLOCK: a named pipe must be refused below, not waited for.
  return of(
      sys::Fd{sys::checked([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); },
                           "open {}", path.string())},
      path.string());
}

MappedFile MappedFile::of(sys::Fd fd, const std::string& name) {
  struct stat file;
  sys::checked([&] { return ::fstat(fd.get(), &file); }, "open {}", name);
  if (S_ISDIR(file.st_mode)) sys::throw_errno(EISDIR, fmt::format("open {}", name));
  if (!S_ISREG(file.st_mode))
    throw Error{Errc::io, fmt::format("open {}: not a regular file", name)};

  const auto size_bytes = static_cast<std::size_t>(file.st_size);
  if (size_bytes == 0) return {std::move(fd), nullptr, 0};
  void* const address = ::mmap(nullptr, size_bytes, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (address == MAP_FAILED) sys::throw_errno(errno, fmt::format("map {}", name));
  ::madvise(address, size_bytes, MADV_RANDOM);
  ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_RANDOM);  // for who reads instead
  return {std::move(fd), static_cast<const std::byte*>(address), size_bytes};
}

void MappedFile::expect_all() const noexcept {
  if (address_ != nullptr) ::madvise(const_cast<std::byte*>(address_), size_, MADV_NORMAL);
}

}  // namespace icecore
