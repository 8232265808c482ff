// SPDX-License-Identifier: Apache-2.0
#include "state/file_table.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gelf.h>
#include <libelf.h>

#include <memory>

#include "icecore/error.hpp"
#include "image/page_run.hpp"

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

bool is_deleted(std::string_view path) { return path.ends_with(kDeleted); }

/// Throws unless the file's name still leads to it.
void check_name(const state::FileT& file) {
  const auto refuse = [&](const char* why) {
    throw Error{Errc::unsupported,
                fmt::format("{}: {}; it could not be opened again", file.path, why)};
  };
  const auto named = sys::try_status(file.path);
  if (!named) refuse("no file has this name any more");
  if (named->st_dev != file.device || named->st_ino != file.inode)
    refuse("another file has this name now");
}

/// Throws unless a file like it could be made where it lies.
void check_folder(const state::FileT& file, const sys::Fd& itself) {
  const auto folder = existing_folder("", file.path);
  if (!sys::on_file_system_of(itself, folder))
    throw Error{Errc::unsupported,
                fmt::format("{}: the file has been deleted, and its file system cannot be reached",
                            file.path)};
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

std::int32_t FileTable::add(const std::string& path, const sys::FileStatus& status,
                            bool contents_matter, const std::string& itself) {
  // One that has no name left is one file, by whatever name it was opened.
  const bool nameless = is_deleted(path) && status.st_nlink == 0;
  const std::tuple key{status.st_dev, status.st_ino, nameless ? std::string{} : path};
  if (const auto known = index_.find(key); known != index_.end()) {
    files_[static_cast<std::size_t>(known->second)]->contents_matter |= contents_matter;
    return known->second;
  }
  auto file = std::make_unique<state::FileT>();
  file->path = path;
  file->contents_matter = contents_matter;
  note(*file, status);
  if (is_deleted(path))
    find_or_keep(*file, status, itself);
  else
    check_name(*file);
  const auto index = static_cast<std::int32_t>(files_.size());
  index_.emplace(key, index);
  files_.push_back(std::move(file));
  return index;
}

/// A file that was unlinked may have another name beside the old one.
void FileTable::find_or_keep(state::FileT& file, const sys::FileStatus& status,
                             const std::string& itself) {
  file.path.resize(file.path.size() - kDeleted.size());
  if (status.st_nlink > 0) {
    const std::string folder = file.path.substr(0, file.path.rfind('/'));
    const auto other = sys::find_name(folder, status.st_ino);
    if (!other)
      throw Error{Errc::unsupported,
                  fmt::format("{}: this name has been deleted, and the file has another one that "
                              "icecore does not know; it could not be opened again",
                              file.path)};
    file.path = *other;
    check_name(file);
    return;
  }
  Kept kept{.file = sys::open_file(itself, O_RDONLY | O_NONBLOCK),
            .address = kept_.empty() ? kFilePagesStart : kept_.back().end_address() + kPageSize,
            .size = file.size};
  constexpr std::uint64_t kHugePages = 0x958458f6;  // HUGETLBFS_MAGIC
  if (sys::file_system_type(kept.file) == kHugePages)
    throw Error{Errc::unsupported,
                fmt::format("{}: a deleted file or memfd of huge pages (hugetlbfs, MFD_HUGETLB): "
                            "cannot be snapshotted yet",
                            file.path)};
  if (kept.address >= kFilePagesEnd || kept.size > kFilePagesEnd - kept.address)
    throw Error{Errc::unsupported, fmt::format("{}: {} bytes of deleted files are too many to keep",
                                               file.path, kept.size)};
  file.kept = std::make_unique<state::KeptFileT>();
  file.kept->first_page = kept.address;
  file.kept->owner = status.st_uid;
  file.kept->group = status.st_gid;
  if (file.path.starts_with(kMemfdPath)) {
    file.kept->kind = state::KeptKind::memory;
    file.kept->seals = sys::seals(kept.file);
  } else {
    check_folder(file, kept.file);
  }
  kept_.push_back(std::move(kept));
}

void FileTable::mark_linkable(std::int32_t index) {
  if (auto& kept = files_[static_cast<std::size_t>(index)]->kept) kept->linkable = true;
}

void FileTable::mark_leased(std::int32_t index) { leased_.insert(index); }

void FileTable::complete() {
  for (std::size_t i = 0; i < files_.size(); ++i) {
    const auto& file = files_[i];
    if (!file->contents_matter || file->kept || is_leased(static_cast<std::int32_t>(i))) continue;
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

std::string existing_folder(const std::string& root, const std::string& path) {
  std::string folder = path;
  do {
    folder.resize(folder.rfind('/'));
    const auto status = sys::try_status(root + folder + "/");
    if (status && S_ISDIR(status->st_mode)) break;
  } while (!folder.empty());
  return root + folder + "/";
}

std::string difference(const state::FileT& noted) {
  if (noted.kept) {
    if (noted.kept->kind == state::KeptKind::memory) return {};
    const std::string folder = existing_folder("", noted.path);
    return sys::can_make_files_in(folder)
               ? ""
               : fmt::format("had been deleted; another could not be made in {}", folder);
  }
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
