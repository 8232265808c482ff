// SPDX-License-Identifier: Apache-2.0
#include "state/file_table.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gelf.h>
#include <libelf.h>

#include <memory>

#include "icecore/error.hpp"

namespace icecore {
namespace {

constexpr std::string_view kDeleted = " (deleted)";

void note(state::FileT& file, const sys::FileStatus& status) {
  file.device = status.st_dev;
  file.inode = status.st_ino;
  file.size = static_cast<std::uint64_t>(status.st_size);
  file.mtime_s = status.st_mtim.tv_sec;
  file.mtime_ns = static_cast<std::uint32_t>(status.st_mtim.tv_nsec);
  file.mode = status.st_mode;
}

bool same_time(const state::FileT& file, const sys::FileStatus& status) {
  return file.mtime_s == status.st_mtim.tv_sec &&
         file.mtime_ns == static_cast<std::uint32_t>(status.st_mtim.tv_nsec);
}

std::string hex(const std::vector<std::uint8_t>& bytes) {
  std::string text;
  for (const std::uint8_t byte : bytes) text += fmt::format("{:02x}", byte);
  return text.empty() ? "none" : text;
}

bool is_elf(const sys::Fd& file) {
  char magic[4];
  return ::pread(file.get(), magic, sizeof magic, 0) == sizeof magic &&
         std::string_view{magic, sizeof magic} == ELFMAG;
}

std::vector<std::uint8_t> build_id_in(Elf_Data* notes) {
  GElf_Nhdr header;
  std::size_t name = 0;
  std::size_t description = 0;
  for (std::size_t at = 0;
       notes != nullptr && (at = ::gelf_getnote(notes, at, &header, &name, &description)) > 0;) {
    const auto* bytes = static_cast<const std::uint8_t*>(notes->d_buf);
    const bool gnu = header.n_namesz == 4 &&
                     std::string_view{reinterpret_cast<const char*>(bytes) + name, 3} == "GNU";
    if (gnu && header.n_type == NT_GNU_BUILD_ID)
      return {bytes + description, bytes + description + header.n_descsz};
  }
  return {};
}

}  // namespace

bool is_deleted(std::string_view path) { return path.ends_with(kDeleted); }

std::int32_t FileTable::add(const std::string& path, const sys::FileStatus& status,
                            bool contents_matter) {
  const auto [at, fresh] = index_.try_emplace({status.st_dev, status.st_ino, path},
                                              static_cast<std::int32_t>(files_.size()));
  if (!fresh) {
    state::FileT& known = *files_[static_cast<std::size_t>(at->second)];
    known.contents_matter |= contents_matter;
    return at->second;
  }
  const auto refuse = [&, entry = at](const std::string& why) {
    index_.erase(entry);
    throw Error{Errc::unsupported, fmt::format("{}: {}", path, why)};
  };
  if (is_deleted(path)) refuse("the file has been deleted; it could not be opened again");
  const auto named = sys::try_status(path);
  if (!named) refuse("no file has this name any more; it could not be opened again");
  if (named->st_dev != status.st_dev || named->st_ino != status.st_ino)
    refuse("another file has this name now; the one in use could not be opened again");

  auto file = std::make_unique<state::FileT>();
  file->path = path;
  file->contents_matter = contents_matter;
  note(*file, status);
  files_.push_back(std::move(file));
  return at->second;
}

void FileTable::complete() {
  for (const auto& file : files_) {
    if (!file->contents_matter) continue;
    if (const auto open = sys::try_open_file(file->path, O_RDONLY | O_NONBLOCK))
      file->build_id = read_build_id(*open);
  }
}

std::vector<std::uint8_t> read_build_id(const sys::Fd& file) {
  if (!is_elf(file)) return {};
  ::elf_version(EV_CURRENT);
  const std::unique_ptr<Elf, int (*)(Elf*)> elf{::elf_begin(file.get(), ELF_C_READ, nullptr),
                                                &::elf_end};
  std::size_t headers = 0;
  if (!elf || ::elf_getphdrnum(elf.get(), &headers) != 0) return {};
  for (std::size_t i = 0; i < headers; ++i) {
    GElf_Phdr header;
    if (::gelf_getphdr(elf.get(), static_cast<int>(i), &header) == nullptr) return {};
    if (header.p_type != PT_NOTE) continue;
    Elf_Data* const notes =
        ::elf_getdata_rawchunk(elf.get(), static_cast<std::int64_t>(header.p_offset),
                               header.p_filesz, header.p_align == 8 ? ELF_T_NHDR8 : ELF_T_NHDR);
    if (auto id = build_id_in(notes); !id.empty()) return id;
  }
  return {};
}

std::string difference(const state::FileT& noted) {
  const auto now = sys::try_status(noted.path);
  if (!now) return "does not exist";
  if ((now->st_mode & S_IFMT) != (noted.mode & S_IFMT)) return "is no regular file any more";
  if (!noted.contents_matter) return {};
  const auto size = static_cast<std::uint64_t>(now->st_size);
  if (size != noted.size) return fmt::format("has {} bytes instead of {}", size, noted.size);
  if (same_time(noted, *now)) return {};
  if (noted.build_id.empty())
    return fmt::format("was modified ({}.{:09} instead of {}.{:09} seconds since 1970)",
                       now->st_mtim.tv_sec, now->st_mtim.tv_nsec, noted.mtime_s, noted.mtime_ns);
  const auto file = sys::try_open_file(noted.path, O_RDONLY | O_NONBLOCK);
  if (!file) return "cannot be read";
  if (const auto id = read_build_id(*file); id != noted.build_id)
    return fmt::format("has build id {} instead of {}", hex(id), hex(noted.build_id));
  return {};
}

}  // namespace icecore
