// SPDX-License-Identifier: Apache-2.0
//
// Pages flow through slabs, a few buffers that go round:
//
//   caller   fills a slab batch by batch: drops zero pages, closes the gaps, digests raw pages
//   encoder  (zstd, two of them) compresses a full slab, frame by frame
//   writer   appends slabs to the image in the order in which they were filled
//
// The caller digests, because the pages are in its cache already and the writer is the slowest
// link: the kernel makes it copy every page once more.  1 GiB of random pages goes through in 0.48
// s, where process_vm_readv and pwrite one after the other, without digests, take 0.61 s.  With the
// digests on the writer's thread a model of this pipeline took half as long again.
//
// The threads start with the first full slab: what fits into one goes through on the caller's.
#include "memory/page_encoder.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "icecore/error.hpp"
#include "image/digest.hpp"
#include "image/format.hpp"
#include "image/image_writer.hpp"
#include "memory/frame_codec.hpp"
#include "memory/worker.hpp"
#include "memory/zero_page.hpp"
#include "sys/mapping.hpp"
#include "sys/process.hpp"

namespace icecore {
namespace {

constexpr int kMinLevel = -7;
constexpr int kMaxLevel = 19;
constexpr int kEncoderThreads = 2;

// Of a full slab.  Raw: as much as the page cache takes in one folio.  zstd: small enough that two
// encoders soon have something to do.
constexpr std::size_t kRawSlabBytes = format::kWriteAlignment;
constexpr std::size_t kZstdSlabBytes = std::size_t{1} << 20;
static_assert(kZstdSlabBytes % format::kFrameBytes == 0);

// One that fills, one that is written, one in between; for zstd two more at the encoders.
constexpr std::size_t kRawSlabs = 3;
constexpr std::size_t kZstdSlabs = 6;

// The target stands still until its last page is in a slab: where it has no more than this, there
// are slabs for all of it.  For 115 MiB that takes half as long again as a few that stay in the
// cache.
constexpr std::size_t kHeldBytes = std::size_t{64} << 20;

// A kernel that does not preempt itself (PREEMPT_NONE) keeps its CPU while it copies a batch.
constexpr std::size_t kSmallBatchBytes = std::size_t{64} << 10;

constexpr std::size_t slab_bytes(Encoding encoding) {
  return encoding == Encoding::raw ? kRawSlabBytes : kZstdSlabBytes;
}

}  // namespace

struct Slab {
  /// `huge`: for so much that clearing 2 MiB at once pays.
  Slab(Encoding encoding, bool huge)
      : pages(encoding != Encoding::raw
                  ? sys::Mapping::anonymous(kZstdSlabBytes + PageEncoder::kBatchBytes)
              : huge ? sys::Mapping::huge(2 * kRawSlabBytes)  // the second half is seldom touched
                     : sys::Mapping::anonymous(2 * kRawSlabBytes)) {
    static_assert(kRawSlabBytes >= PageEncoder::kBatchBytes);
    if (encoding == Encoding::zstd) encoded = sys::Mapping::anonymous(kZstdSlabBytes);
  }

  void reset() {
    filled_bytes = 0;
    ready = false;
    frames.clear();
  }

  std::span<const std::byte> filled() const { return pages.bytes().first(filled_bytes); }

  sys::Mapping pages;
  std::size_t filled_bytes = 0;
  bool ready = false;                 // to be written
  std::span<const std::byte> stored;  // what is to be written
  sys::Mapping encoded;               // zstd
  std::vector<Frame> frames;          // zstd
};

namespace {

void encode_slab(FrameEncoder& encoder, Slab& slab) {
  std::size_t encoded_bytes = 0;
  for (auto left = slab.filled(); !left.empty();) {
    const auto pages = left.first(std::min(left.size(), format::kFrameBytes));
    slab.frames.push_back(encoder.encode(pages, slab.encoded.bytes().subspan(encoded_bytes)));
    encoded_bytes += slab.frames.back().size_bytes;
    left = left.subspan(pages.size());
  }
  slab.stored = slab.encoded.bytes().first(encoded_bytes);
}

}  // namespace

struct PageEncoder::Pipeline {
  Pipeline(ImageWriter& writer, Encoding encoding, int level)
      : image(writer),
        zstd_level(level),
        full_bytes(encoding == Encoding::raw ? kRawSlabBytes - writer.position() % kRawSlabBytes
                                             : kZstdSlabBytes),
        most_slabs(encoding == Encoding::raw ? kRawSlabs : kZstdSlabs) {
    map.encoding = encoding;
    map.data_offset = writer.position();
  }

  ~Pipeline() { stop_workers(); }

  // ---- on the caller's thread ---------------------------------------------------------------

  void expect(std::uint64_t bytes) noexcept {
    huge_slabs = bytes >= kRawSlabBytes / 2;
    if (bytes <= kHeldBytes)
      most_slabs = std::max<std::size_t>(most_slabs, bytes / slab_bytes(map.encoding) + 2);
  }

  void give_way() noexcept { gives_way = true; }

  std::span<std::byte> buffer() {
    if (filling == nullptr) filling = take_free_slab();
    return filling->pages.bytes().subspan(filling->filled_bytes, kBatchBytes);
  }

  std::size_t room_bytes() const {
    return std::min(gives_way ? kSmallBatchBytes : kBatchBytes,
                    full_bytes - (filling != nullptr ? filling->filled_bytes : 0));
  }

  void submit(std::span<const PageRun> runs) {
    const std::byte* page = buffer().data();
    for (const PageRun& run : runs)
      for (std::uint64_t address = run.address; address < run.end(); address += kPageSize) {
        add_page(address, page);
        page += kPageSize;
      }
    if (filling->filled_bytes >= full_bytes) hand_over_full();
    if (gives_way) sys::yield();
  }

  PageMap finish() {
    if (filling != nullptr && filling->filled_bytes != 0) {
      if (workers.empty()) {
        encode_and_write(*filling);
        return std::move(map);
      }
      hand_over(*std::exchange(filling, nullptr));
    }
    {
      const std::lock_guard lock{mutex};
      no_more = true;
    }
    changed.notify_all();
    workers.clear();  // joins
    if (failure) std::rethrow_exception(failure);
    return std::move(map);
  }

  std::uint64_t zero_pages = 0;

 private:
  void add_page(std::uint64_t address, const std::byte* page) {
    if (is_zero_page(page)) {
      ++zero_pages;
      return;
    }
    std::byte* const place = filling->pages.data() + filling->filled_bytes;
    if (place != page) std::memcpy(place, page, kPageSize);  // zero pages before it were dropped
    filling->filled_bytes += kPageSize;
    if (map.encoding == Encoding::raw) map.page_digests.push_back(digest64({place, kPageSize}));
    if (!map.runs.empty() && map.runs.back().end() == address)
      ++map.runs.back().pages;
    else
      map.runs.push_back({.address = address, .pages = 1});
    ++map.stored_pages;
  }

  // What is beyond a full slab becomes the beginning of the next.
  void hand_over_full() {
    Slab& full = *filling;
    if (full.filled_bytes == full_bytes) {
      filling = nullptr;
      full_bytes = slab_bytes(map.encoding);
      return hand_over(full);
    }
    Slab& next = *take_free_slab();
    next.filled_bytes = full.filled_bytes - full_bytes;
    std::memcpy(next.pages.data(), full.pages.data() + full_bytes, next.filled_bytes);
    full.filled_bytes = full_bytes;
    filling = &next;
    full_bytes = slab_bytes(map.encoding);  // the first one of a raw image is shorter
    hand_over(full);
  }

  void hand_over(Slab& slab) {
    if (workers.empty()) start_workers();
    const std::lock_guard lock{mutex};
    in_order.push_back(&slab);
    if (map.encoding == Encoding::raw) {
      slab.stored = slab.filled();
      slab.ready = true;
    } else {
      to_encode.push_back(&slab);
    }
    changed.notify_all();
  }

  void encode_and_write(Slab& slab) {
    slab.stored = slab.filled();
    if (map.encoding == Encoding::zstd) {
      FrameEncoder encoder{zstd_level};
      encode_slab(encoder, slab);
    }
    write_slab(slab);
  }

  Slab* take_free_slab() {
    std::unique_lock lock{mutex};
    if (free.empty() && slabs.size() < most_slabs) {
      slabs.push_back(std::make_unique<Slab>(map.encoding, huge_slabs));
      return slabs.back().get();
    }
    changed.wait(lock, [&] { return failure || !free.empty(); });
    if (failure) std::rethrow_exception(failure);
    Slab* const slab = free.back();  // the one used last: more of it is still in a cache
    free.pop_back();
    return slab;
  }

  // ---- on the workers' threads --------------------------------------------------------------

  void start_workers() {
    if (map.encoding == Encoding::zstd)
      for (int i = 0; i < kEncoderThreads; ++i) start([this] { encode_slabs(); });
    start([this] { write_slabs(); });
  }

  template <class Work>
  void start(Work work) {
    workers.push_back(start_worker([this, work] {
      try {
        work();
      } catch (...) {
        const std::lock_guard lock{mutex};
        if (!failure) failure = std::current_exception();
        stopped = true;
        changed.notify_all();
      }
    }));
  }

  void stop_workers() noexcept {
    {
      const std::lock_guard lock{mutex};
      stopped = true;
    }
    changed.notify_all();
    workers.clear();  // joins
  }

  void encode_slabs() {
    FrameEncoder encoder{zstd_level};
    while (Slab* const slab = next_to_encode()) {
      if (gives_way) sys::give_way();
      encode_slab(encoder, *slab);
      const std::lock_guard lock{mutex};
      slab->ready = true;
      changed.notify_all();
    }
  }

  Slab* next_to_encode() {
    std::unique_lock lock{mutex};
    changed.wait(lock, [&] { return stopped || no_more || !to_encode.empty(); });
    if (stopped || to_encode.empty()) return nullptr;
    Slab* const slab = to_encode.front();
    to_encode.pop_front();
    return slab;
  }

  void write_slabs() {
    while (Slab* const slab = next_to_write()) {
      if (gives_way) sys::give_way();
      write_slab(*slab);
      const std::lock_guard lock{mutex};
      slab->reset();
      free.push_back(slab);
      changed.notify_all();
    }
  }

  Slab* next_to_write() {
    std::unique_lock lock{mutex};
    changed.wait(lock,
                 [&] { return stopped || (in_order.empty() ? no_more : in_order.front()->ready); });
    if (stopped || in_order.empty()) return nullptr;
    Slab* const slab = in_order.front();
    in_order.pop_front();
    return slab;
  }

  void write_slab(Slab& slab) {
    std::uint64_t offset = image.position();
    image.append(slab.stored);
    for (Frame& frame : slab.frames) {
      frame.offset = offset;
      offset += frame.size_bytes;
      map.frames.push_back(frame);
    }
  }

  ImageWriter& image;
  const int zstd_level;
  PageMap map;  // `frames` belongs to the writer until it has ended, the rest to the caller
  Slab* filling = nullptr;  // the caller's
  std::size_t full_bytes;   // when `filling` is to be handed over
  std::size_t most_slabs;
  bool huge_slabs = true;
  std::atomic<bool> gives_way = false;

  std::mutex mutex;  // guards all that follows
  std::condition_variable changed;
  std::vector<std::unique_ptr<Slab>> slabs;
  std::vector<Slab*> free;
  std::deque<Slab*> in_order;   // filled and not yet written, in the order of the image
  std::deque<Slab*> to_encode;  // zstd
  bool no_more = false;         // in_order gets no more
  bool stopped = false;         // end at once
  std::exception_ptr failure;

  std::vector<std::jthread> workers;
};

PageEncoder::PageEncoder(ImageWriter& image, Encoding encoding, int zstd_level) {
  if (encoding == Encoding::zstd && (zstd_level < kMinLevel || zstd_level > kMaxLevel))
    throw Error{Errc::invalid_argument,
                fmt::format("zstd level {}: must be {} to {}", zstd_level, kMinLevel, kMaxLevel)};
  pipeline_ = std::make_unique<Pipeline>(image, encoding, zstd_level);
}

PageEncoder::~PageEncoder() = default;

void PageEncoder::expect(std::uint64_t bytes) noexcept { pipeline_->expect(bytes); }
void PageEncoder::give_way() noexcept { pipeline_->give_way(); }
std::span<std::byte> PageEncoder::buffer() { return pipeline_->buffer(); }
std::size_t PageEncoder::room_bytes() const noexcept { return pipeline_->room_bytes(); }
void PageEncoder::submit(std::span<const PageRun> runs) { pipeline_->submit(runs); }
PageMap PageEncoder::finish() { return pipeline_->finish(); }
std::uint64_t PageEncoder::zero_pages() const noexcept { return pipeline_->zero_pages; }

}  // namespace icecore
