// SPDX-License-Identifier: Apache-2.0
#include "memory/page_reader.hpp"

#include <algorithm>

#include "icecore/error.hpp"

namespace icecore {
namespace {

/// Takes up to `pages` pages off the front of the runs that begin at `run`, `skipped` pages into
/// it.
std::vector<PageRun> take(const std::vector<PageRun>& runs, std::size_t& run,
                          std::uint64_t& skipped, std::uint64_t pages) {
  std::vector<PageRun> taken;
  while (pages > 0 && run < runs.size()) {
    const std::uint64_t count = std::min(pages, runs[run].pages - skipped);
    taken.push_back({runs[run].address + skipped * kPageSize, count});
    pages -= count;
    skipped += count;
    if (skipped == runs[run].pages) {
      ++run;
      skipped = 0;
    }
  }
  return taken;
}

std::uint64_t total_pages(const std::vector<PageRun>& runs) {
  std::uint64_t pages = 0;
  for (const PageRun& run : runs) pages += run.pages;
  return pages;
}

}  // namespace

void read_pages(const sys::RemoteMemory& memory, const std::vector<PageRun>& runs,
                PageEncoder& encoder, const ProgressCallback& progress,
                const std::stop_token& stop) {
  const std::uint64_t total_bytes = total_pages(runs) * kPageSize;
  std::uint64_t done_bytes = 0;
  std::size_t run = 0;
  std::uint64_t skipped = 0;
  std::vector<sys::RemoteRange> ranges;
  while (run < runs.size()) {
    if (stop.stop_requested()) throw Error{Errc::cancelled, "snapshot: cancelled"};
    const std::span<std::byte> buffer = encoder.buffer();
    const auto batch = take(runs, run, skipped, buffer.size() / kPageSize);
    ranges.clear();
    std::size_t bytes = 0;
    for (const PageRun& part : batch) {
      ranges.push_back({part.address, part.pages * kPageSize});
      bytes += ranges.back().size_bytes;
    }
    memory.read(ranges, buffer.first(bytes));
    encoder.submit(batch);
    done_bytes += bytes;
    if (progress) progress({"pages", done_bytes, total_bytes});
  }
}

}  // namespace icecore
