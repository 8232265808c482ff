// SPDX-License-Identifier: Apache-2.0
//
// A loan is one message with two descriptors, of the image and of a file in memory with the missing
// ranges, and lasts until the connection is closed.
#include "pager/loan.hpp"

#include <fmt/format.h>

#include <array>
#include <vector>

#include "icecore/error.hpp"
#include "sys/files.hpp"
#include "sys/mapping.hpp"

namespace icecore::pager {
namespace {

constexpr std::chrono::seconds kPatience{10};

std::vector<StoredRange> read_ranges(const sys::Fd& file) {
  const auto size_bytes = static_cast<std::size_t>(sys::status(file).st_size);
  std::vector<StoredRange> ranges(size_bytes / sizeof(StoredRange));
  if (ranges.empty()) return ranges;
  const auto mapping = sys::Mapping::shared(file, size_bytes);
  std::memcpy(ranges.data(), mapping.data(), ranges.size() * sizeof(StoredRange));
  return ranges;
}

/// The pager may be another user's, whose process we look at.
bool is_possible(const StoredRange& range, std::uint64_t stored_pages) {
  constexpr std::uint64_t kEndOfUserSpace = 0x7ffffffff000;
  return range.address % kPageSize == 0 && range.address < kEndOfUserSpace &&
         range.pages <= (kEndOfUserSpace - range.address) / kPageSize &&
         range.first_page <= stored_pages && range.pages <= stored_pages - range.first_page;
}

}  // namespace

std::string address_of(pid_t pid, const sys::Fd& process) {
  // The inode of a pidfd is that of one process for ever (Linux 6.9).
  return fmt::format("icecore-pager/{}/{}", pid, sys::status(process).st_ino);
}

std::optional<Loan> Loan::take(pid_t pid, const sys::Fd& process) {
  sys::Fd pager =
      sys::try_connect(address_of(pid, process), sys::status(fmt::format("/proc/{}", pid)).st_uid);
  if (!pager) return std::nullopt;
  if (!sys::wait_readable(pager, kPatience))
    throw Error{Errc::io,
                fmt::format("the pager of process {} does not answer: is it stopped?", pid)};
  std::vector<sys::Fd> passed = sys::receive_descriptors(pager);
  if (passed.size() != 2) return std::nullopt;  // it ended: everything is there
  return Loan{std::move(pager),
              MappedFile::of(std::move(passed[0]), fmt::format("the image of process {}", pid)),
              passed[1]};
}

Loan::Loan(sys::Fd pager, MappedFile image, const sys::Fd& ranges)
    : pager_(std::move(pager)),
      file_(std::move(image)),
      image_(std::make_unique<const ImageReader>(file_.bytes())) {
  for (const StoredRange& range : read_ranges(ranges)) {
    if (!is_possible(range, image_->page_map().stored_pages))
      throw Error{Errc::internal, "the pager lends pages that its image does not have"};
    missing_.add(range);
  }
}

void lend(const sys::Fd& borrower, const sys::Fd& image, const MissingPages& missing) {
  const std::vector<StoredRange> ranges = missing.ranges();
  const sys::Fd file = sys::make_memory_file("icecore missing pages");
  sys::write_all(file, std::as_bytes(std::span{ranges}), 0);
  sys::send_descriptors(borrower, std::array{image.get(), file.get()});
}

}  // namespace icecore::pager
