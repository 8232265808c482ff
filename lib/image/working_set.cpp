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
#include "sys/mapping.hpp"

namespace icecore {
namespace {

constexpr std::array<char, 8> kMagic = {'i', 'c', 'e', 'w', 's', 'e', 't', '\n'};
constexpr std::uint32_t kVersion = 1;

struct Header {
  std::array<char, 8> magic;
  std::uint32_t version;
  std::uint32_t reserved;  // 0
  Digest128 image;
  std::uint64_t pages;
  std::uint64_t data_offset;
  Digest128 index_digest;  // of the index, which follows
};
static_assert(sizeof(Header) == 64);

/// Of each page: its number, its digest, its place in the order of first touch.
struct Entry {
  std::uint64_t page;
  std::uint64_t digest;
  std::uint32_t order;
  std::uint32_t reserved;  // 0
};
static_assert(sizeof(Entry) == 24);

constexpr std::uint64_t up_to_page(std::uint64_t bytes) {
  return (bytes + kPageSize - 1) / kPageSize * kPageSize;
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
  const std::span<const std::byte> bytes = file->bytes();
  Header header{};
  if (bytes.size() < sizeof header) corrupt("a working set of {} bytes", bytes.size());
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != kMagic) corrupt("not a working set");
  if (header.version != kVersion)
    throw Error{Errc::incompatible, fmt::format("a working set of version {}", header.version)};
  if (header.image != image.identity())
    throw Error{Errc::incompatible, "the working set of another image"};

  const std::uint64_t room = (bytes.size() - sizeof header) / (sizeof(Entry) + kPageSize);
  if (header.reserved != 0 || header.pages > room) corrupt("a working set that is cut off");
  const std::uint64_t index_bytes = header.pages * sizeof(Entry);
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
    std::span<const std::uint64_t> touched,
    const std::function<std::span<const std::byte>(std::uint64_t page)>& contents) {
  std::vector<std::uint32_t> by_page(touched.size());
  std::iota(by_page.begin(), by_page.end(), 0U);
  std::ranges::sort(by_page, {}, [&](std::uint32_t i) { return touched[i]; });

  Header header{.magic = kMagic,
                .version = kVersion,
                .reserved = 0,
                .image = image.identity(),
                .pages = touched.size(),
                .data_offset = up_to_page(sizeof(Header) + touched.size() * sizeof(Entry)),
                .index_digest = {}};
  NewFile file{path};
  std::vector<Entry> index;
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
    index.push_back({touched[i], digest64(bytes), i, 0});
    piece.insert(piece.end(), bytes.begin(), bytes.end());
    if (piece.size() >= kPiece) flush();
  }
  flush();
  header.index_digest = digest128(std::as_bytes(std::span{index}));
  file.write_at(0, std::as_bytes(std::span{&header, 1}));
  file.write_at(sizeof header, std::as_bytes(std::span{index}));
  file.commit(false);
}

}  // namespace icecore
