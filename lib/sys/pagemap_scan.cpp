// SPDX-License-Identifier: Apache-2.0
#include "sys/pagemap_scan.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <array>

#include "sys/call.hpp"

namespace icecore::sys {
namespace {

// Debian 12's kernel headers are older than the interface.
struct pm_scan_arg {
  std::uint64_t size = 0;
  std::uint64_t flags = 0;
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::uint64_t walk_end = 0;
  std::uint64_t vec = 0;
  std::uint64_t vec_len = 0;
  std::uint64_t max_pages = 0;
  std::uint64_t category_inverted = 0;
  std::uint64_t category_mask = 0;
  std::uint64_t category_anyof_mask = 0;
  std::uint64_t return_mask = 0;
};
struct page_region {
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t categories;
};
static_assert(sizeof(pm_scan_arg) == 96 && sizeof(page_region) == 24);
constexpr unsigned long kScan = _IOWR('f', 16, pm_scan_arg);

constexpr std::uint64_t kFile = 1U << 2;
constexpr std::uint64_t kPresent = 1U << 3;
constexpr std::uint64_t kSwapped = 1U << 4;
constexpr std::uint64_t kZeroPage = 1U << 5;
constexpr std::uint64_t kGuard = 1U << 8;

/// Runs the scan and gives every region to `take`.
template <class Take>
void scan(const Fd& pagemap, pm_scan_arg arguments, Take take) {
  std::array<page_region, 512> regions;
  arguments.size = sizeof arguments;
  arguments.vec = reinterpret_cast<std::uint64_t>(regions.data());
  arguments.vec_len = regions.size();
  while (arguments.start < arguments.end) {
    const int count = checked([&] { return ::ioctl(pagemap.get(), kScan, &arguments); },
                              "scan pages at {:#x}", arguments.start);
    for (int i = 0; i < count; ++i) take(regions[static_cast<std::size_t>(i)]);
    arguments.start = arguments.walk_end;
  }
}

/// kGuard where the kernel knows it, since it refuses a scan for a category that it does not know.
std::uint64_t guard_category(const Fd& pagemap) {
  static const std::uint64_t known = [&] {
    pm_scan_arg nothing{.category_mask = kGuard};
    nothing.size = sizeof nothing;
    return ::ioctl(pagemap.get(), kScan, &nothing) >= 0 ? kGuard : 0;
  }();
  return known;
}

void append(std::vector<PageRange>& ranges, const page_region& region) {
  if (!ranges.empty() && ranges.back().end == region.start)
    ranges.back().end = region.end;
  else
    ranges.push_back({region.start, region.end});
}

}  // namespace

PagemapScan::PagemapScan(pid_t pid)
    : pagemap_{checked(
          [&] {
            return ::open(fmt::format("/proc/{}/pagemap", pid).c_str(), O_RDONLY | O_CLOEXEC);
          },
          "open /proc/{}/pagemap", pid)} {}

std::optional<PagemapScan> PagemapScan::try_open(pid_t pid) {
  try {
    return PagemapScan{pid};
  } catch (const Error&) {
    return std::nullopt;
  }
}

void PagemapScan::private_pages(std::uint64_t start, std::uint64_t end,
                                std::vector<PageRange>& ranges,
                                std::vector<PageRange>& guards) const {
  const std::uint64_t guard = guard_category(pagemap_);
  const pm_scan_arg wanted{
      .start = start,
      .end = end,
      .category_inverted = kFile | kZeroPage,
      .category_mask = kFile | kZeroPage,
      .category_anyof_mask = kPresent | kSwapped | guard,
      .return_mask = guard,
  };
  scan(pagemap_, wanted, [&](const page_region& region) {
    append((region.categories & kGuard) != 0 ? guards : ranges, region);
  });
}

void PagemapScan::guards(std::uint64_t start, std::uint64_t end,
                         std::vector<PageRange>& ranges) const {
  const std::uint64_t guard = guard_category(pagemap_);
  if (guard == 0) return;
  const pm_scan_arg wanted{
      .start = start, .end = end, .category_mask = guard, .return_mask = guard};
  scan(pagemap_, wanted, [&](const page_region& region) { append(ranges, region); });
}

void PagemapScan::used_file_pages(std::uint64_t start, std::uint64_t end,
                                  std::vector<PageRange>& ranges) const {
  const pm_scan_arg wanted{
      .start = start,
      .end = end,
      .category_mask = kFile | kPresent,
  };
  scan(pagemap_, wanted, [&](const page_region& region) { append(ranges, region); });
}

}  // namespace icecore::sys
