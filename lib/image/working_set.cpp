// SPDX-License-Identifier: Apache-2.0
#include "image/working_set.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <numeric>

#include "icecore/error.hpp"
#include "image/corrupt.hpp"
#include "image/new_file.hpp"
#include "image/page_run.hpp"
#include "image/state_generated.h"
#include "sys/mapping.hpp"

namespace icecore {
namespace {

constexpr std::array<char, 8> kMagic = {'i', 'c', 'e', 'w', 's', 'e', 't', '\n'};
constexpr std::uint32_t kVersion = 2;

struct Header {
  std::array<char, 8> magic;
  std::uint32_t version;
  std::uint32_t reserved;  // 0
  Digest128 image;
  std::uint64_t pages;
  std::uint64_t file_runs;
  std::uint64_t data_offset;
  std::uint64_t reserved_too;  // 0
  Digest128 index_digest;      // of the index, which follows
};
static_assert(sizeof(Header) == 80);

/// Of each page: its number, its digest, its place in the order of first touch.
struct Entry {
  std::uint64_t page;
  std::uint64_t digest;
  std::uint32_t order;
  std::uint32_t reserved;  // 0
};
static_assert(sizeof(Entry) == 24);
static_assert(sizeof(FilePages) == 16);

std::uint64_t pages_of(const ImageReader& image, std::uint32_t file) {
  return up_to_page(image.manifest().process->files[file]->size) / kPageSize;
}

bool is_possible(const FilePages& run, const ImageReader& image) {
  if (run.file >= image.manifest().process->files.size() || run.pages == 0) return false;
  const std::uint64_t pages = pages_of(image, run.file);
  return run.first_page < pages && run.pages <= pages - run.first_page;
}

/// Sorted, within the files, and without overlaps.
std::vector<FilePages> joined(std::vector<FilePages> runs, const ImageReader& image) {
  std::ranges::sort(runs, {}, [](const FilePages& run) {
    return std::pair{run.file, run.first_page};
  });
  std::vector<FilePages> result;
  for (FilePages run : runs) {
    const std::uint64_t pages = pages_of(image, run.file);
    if (run.first_page >= pages) continue;
    run.pages =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(run.pages, pages - run.first_page));
    if (result.empty() || result.back().file != run.file ||
        result.back().first_page + result.back().pages < run.first_page) {
      result.push_back(run);
    } else {
      FilePages& last = result.back();
      last.pages = std::max(
          last.pages, static_cast<std::uint32_t>(run.first_page - last.first_page + run.pages));
    }
  }
  return result;
}

}  // namespace

std::filesystem::path WorkingSet::path_for(const std::filesystem::path& image) {
  std::filesystem::path path = image;
  path += ".ws";
  return path;
}

std::optional<WorkingSet> WorkingSet::open(const std::filesystem::path& path,
                                           const ImageReader& image) {
  std::optional<MappedFile> file;
  try {
    file.emplace(MappedFile::open(path));
  } catch (const Error& error) {
    if (error.sys_errno() == ENOENT) return std::nullopt;
    throw;
  }
  file->expect_all();
  const std::span<const std::byte> bytes = file->bytes();
  Header header{};
  if (bytes.size() < sizeof header) corrupt("a working set of {} bytes", bytes.size());
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != kMagic) corrupt("not a working set");
  if (header.version != kVersion)
    throw Error{Errc::incompatible, fmt::format("a working set of version {}", header.version)};
  if (header.image != image.identity())
    throw Error{Errc::incompatible, "the working set of another image"};

  const std::uint64_t room = bytes.size() - sizeof header;
  if (header.reserved != 0 || header.reserved_too != 0 ||
      header.pages > room / (sizeof(Entry) + kPageSize) ||
      header.file_runs > (room - header.pages * sizeof(Entry)) / sizeof(FilePages))
    corrupt("a working set that is cut off");
  const std::uint64_t index_bytes =
      header.pages * sizeof(Entry) + header.file_runs * sizeof(FilePages);
  if (header.data_offset != up_to_page(sizeof header + index_bytes) ||
      header.data_offset > bytes.size() ||
      header.pages > (bytes.size() - header.data_offset) / kPageSize)
    corrupt("a working set that is cut off");
  const auto index = bytes.subspan(sizeof header, index_bytes);
  if (digest128(index) != header.index_digest)
    corrupt("the index of the working set differs from its digest");

  WorkingSet set{std::move(*file)};
  set.data_offset_ = header.data_offset;
  for (std::uint64_t i = 0; i < header.pages; ++i) {
    Entry entry;
    std::memcpy(&entry, index.data() + i * sizeof entry, sizeof entry);
    if (entry.page >= image.page_map().stored_pages ||
        (!set.pages_.empty() && entry.page <= set.pages_.back()) || entry.reserved != 0)
      corrupt("page {} in the index of the working set", entry.page);
    set.pages_.push_back(entry.page);
    set.digests_.push_back(entry.digest);
    set.order_.push_back(entry.order);
  }
  set.file_pages_.resize(header.file_runs);
  if (!set.file_pages_.empty())
    std::memcpy(set.file_pages_.data(), index.data() + header.pages * sizeof(Entry),
                header.file_runs * sizeof(FilePages));
  const FilePages* before = nullptr;
  for (const FilePages& run : set.file_pages_) {
    const bool ascends =
        before == nullptr || before->file < run.file ||
        (before->file == run.file && before->first_page + before->pages < run.first_page);
    if (!ascends || !is_possible(run, image))
      corrupt("page {} of file {} in the index of the working set", run.first_page, run.file);
    before = &run;
  }
  return set;
}

std::span<const std::byte> WorkingSet::read(std::size_t first, std::size_t count) const {
  const auto bytes = file_.bytes().subspan(data_offset_ + first * kPageSize, count * kPageSize);
  if (!sys::try_populate(bytes)) corrupt("the working set has become shorter, or the disk fails");
  for (std::size_t i = 0; i < count; ++i)
    if (digest64(bytes.subspan(i * kPageSize, kPageSize)) != digests_[first + i])
      corrupt("page {} of the working set differs from its digest", pages_[first + i]);
  return bytes;
}

void write_working_set(
    const std::filesystem::path& path, const ImageReader& image,
    std::span<const std::uint64_t> touched, std::vector<FilePages> file_pages,
    const std::function<std::span<const std::byte>(std::uint64_t page)>& contents) {
  const std::vector<FilePages> file_runs = joined(std::move(file_pages), image);
  std::vector<std::uint32_t> by_page(touched.size());
  std::iota(by_page.begin(), by_page.end(), 0U);
  std::ranges::sort(by_page, {}, [&](std::uint32_t i) { return touched[i]; });

  const std::uint64_t index_bytes =
      touched.size() * sizeof(Entry) + file_runs.size() * sizeof(FilePages);
  Header header{.magic = kMagic,
                .version = kVersion,
                .reserved = 0,
                .image = image.identity(),
                .pages = touched.size(),
                .file_runs = file_runs.size(),
                .data_offset = up_to_page(sizeof(Header) + index_bytes),
                .reserved_too = 0,
                .index_digest = {}};
  NewFile file{path};
  std::vector<std::byte> index;
  const auto add_to_index = [&](const auto& entry) {
    const auto bytes = std::as_bytes(std::span{&entry, 1});
    index.insert(index.end(), bytes.begin(), bytes.end());
  };
  std::vector<std::byte> piece;
  std::uint64_t written = header.data_offset;
  const auto flush = [&] {
    file.write_at(written, piece);
    written += piece.size();
    piece.clear();
  };
  constexpr std::size_t kPiece = std::size_t{2} << 20;
  for (const std::uint32_t i : by_page) {
    const auto bytes = contents(touched[i]);
    add_to_index(Entry{touched[i], digest64(bytes), i, 0});
    piece.insert(piece.end(), bytes.begin(), bytes.end());
    if (piece.size() >= kPiece) flush();
  }
  flush();
  for (const FilePages& run : file_runs) add_to_index(run);
  header.index_digest = digest128(index);
  file.write_at(0, std::as_bytes(std::span{&header, 1}));
  file.write_at(sizeof header, index);
  file.commit(false);
}

}  // namespace icecore
