// SPDX-License-Identifier: Apache-2.0
#include "pager/worker.hpp"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

#include "icecore/error.hpp"
#include "image/format.hpp"
#include "image/mapping.hpp"
#include "image/state_generated.h"
#include "pager/loan.hpp"
#include "sys/files.hpp"
#include "sys/pagemap_scan.hpp"
#include "sys/process.hpp"
#include "sys/remote_memory.hpp"
#include "sys/socket.hpp"

namespace icecore::pager {
namespace {

using Kind = sys::PageEvent::Kind;
using Stop = sys::FillResult::Stop;
using std::chrono::milliseconds;

constexpr sys::PageMessage kNoMessage{};

/// In the journal only: an address space is gone.
constexpr sys::PageMessage kDropped{~std::uint64_t{0}, 0, 0, 0};

/// A program that reads on is answered with up to so many pages at once: a 64 KiB cluster costs as
/// much as six single faults.
constexpr std::uint64_t kLargestCluster = 16;

/// Where pages are touched without order, but many of them: a 64 KiB cluster costs as much as five
/// or six single faults, so after so many in one such area the rest of it comes at once; and when
/// so many areas within a MiB have become like that, the rest of that.
constexpr std::uint64_t kSmall = 64 << 10, kLarge = 1 << 20;
constexpr std::uint16_t kManyFaults = 4, kManyAreas = 4;

/// How long faults must have been quiet before the rest is filled in.
constexpr milliseconds kQuiet{20};

/// How long they must have been for what has been recorded so far to be kept.
constexpr milliseconds kQuietRecord{1000};

/// Faults that follow each other sooner than this are waited for without sleeping, for so long.
constexpr std::chrono::microseconds kThick{100};
constexpr milliseconds kLookOut{5};

/// So many pages the disk reads at once when all are filled in.
constexpr std::uint64_t kReadAhead = 256;

/// How soon what could not be filled is tried again.
constexpr milliseconds kAgain{1};

/// How often address spaces are looked at that do not tell of their end.
constexpr milliseconds kLook{1000};

constexpr std::uint64_t page_of(std::uint64_t address) { return address & ~(kPageSize - 1); }

}  // namespace

Worker::Worker(const Shared& shared, const ImageReader& image, const sys::Fd& file, int root,
               const sys::Fd& process, const sys::Fd& socket, const sys::PagemapScan* pagemap,
               const sys::OutputMeter* output)
    : shared_(shared),
      head_(shared.head()),
      orders_(shared.orders()),
      image_(image),
      image_file_(file),
      store_(image, file),
      hands_(store_),
      process_(process),
      socket_(socket),
      pagemap_(pagemap),
      record_(shared, orders_, image, store_, pagemap, output) {
  spaces_.emplace_back();
  spaces_.front().faults = new sys::Userfaultfd{sys::Userfaultfd::opened(sys::Fd{root})};
  for (const StoredRange& range : orders_.ranges) spaces_.front().missing.add(range);
  live_.push_back(0);
  replay();
}

// ---- what has happened ----------------------------------------------------------------------

void Worker::replay() {
  for (std::uint64_t i = 0; i < head_.journal_used; ++i) {
    const JournalEntry& entry = shared_.journal()[i];
    if (entry.message == kDropped) {
      spaces_[entry.space].gone = true;
      spaces_[entry.space].missing = {};
      std::erase(live_, entry.space);
    } else {
      apply(entry.space, entry.message);
    }
  }
}

/// Changes the picture, and nothing else.
void Worker::apply(std::size_t index, const sys::PageMessage& message) {
  const sys::PageEvent event = sys::decode(message);
  Space& space = spaces_[index];
  switch (event.kind) {
    case Kind::fork: {
      Space& child = spaces_.emplace_back();
      child.faults = new sys::Userfaultfd{sys::Userfaultfd::opened(sys::Fd{event.fd})};
      child.missing = spaces_[index].missing;
      live_.push_back(spaces_.size() - 1);
      break;
    }
    case Kind::remap:
      space.missing.move(event.start, event.end, event.to);
      break;
    case Kind::remove:
    case Kind::unmap:
      space.missing.erase(event.start, event.end);
      break;
    default:
      break;
  }
}

std::size_t Worker::read_messages(std::size_t index) {
  head_.pending_space = static_cast<std::uint32_t>(index);
  const std::size_t count = spaces_[index].faults->read(head_.pending);
  if (count == 0) return 0;
  handle_pending(index);
  retry_deferred(index);
  return count;
}

/// Events before faults, though they may have come later: whoever discards memory goes on as soon
/// as the event has been read, and what was filled in for a fault after that would be there for
/// good.
void Worker::handle_pending(std::size_t index) {
  std::array<std::uint64_t, kMessagesAtOnce> faults;
  std::size_t count = 0;
  for (sys::PageMessage& message : head_.pending) {
    const sys::PageEvent event = sys::decode(message);
    if (event.kind == Kind::fault)
      faults[count++] = page_of(event.start);
    else if (message != kNoMessage)
      note_event(index, message);
  }
  if (count > 0) answer(index, std::span{faults}.first(count));
  head_.pending.fill(kNoMessage);
}

/// Once: a worker that died between the last two lines has left both.
void Worker::note_event(std::size_t index, sys::PageMessage& message) {
  const std::uint64_t used = head_.journal_used;
  const auto journal = shared_.journal();
  const bool known =
      used > 0 && journal[used - 1].space == index && journal[used - 1].message == message;
  if (!known) {
    if (used == journal.size()) throw Error{Errc::internal, "the journal of memory events is full"};
    journal[used] = {static_cast<std::uint32_t>(index), 0, message};
    head_.journal_used = used + 1;
    apply(index, message);
  }
  message = kNoMessage;
}

/// What the worker before us has read and not finished.  Its faults are raised again by the kernel.
void Worker::resume_pending() {
  for (sys::PageMessage& message : head_.pending)
    if (sys::decode(message).kind == Kind::fault) message = kNoMessage;
  handle_pending(head_.pending_space);
}

void Worker::wake_everybody() {
  constexpr std::uint64_t kEndOfUserSpace = 0x7ffffffff000;
  const std::vector<std::size_t> live = live_;
  for (const std::size_t i : live) {
    if (spaces_[i].faults->alive())
      spaces_[i].faults->wake(0, kEndOfUserSpace);
    else
      drop(i);
  }
}

void Worker::drop(std::size_t index) {
  Space& space = spaces_[index];
  if (space.gone) return;
  space.gone = true;
  std::erase(live_, index);
  space.missing = {};
  space.deferred.clear();
  const std::uint64_t used = head_.journal_used;
  if (used < shared_.journal().size()) {
    shared_.journal()[used] = {static_cast<std::uint32_t>(index), 0, kDropped};
    head_.journal_used = used + 1;
    // Its number may serve again; the journal must know first.  That of the process itself stays.
    if (index != 0) delete std::exchange(space.faults, nullptr);
  }
}

// ---- pages ----------------------------------------------------------------------------------

void Worker::answer(std::size_t index, std::span<const std::uint64_t> addresses) {
  const auto begin = Clock::now();
  pieces_.clear();
  others_.clear();
  for (const std::uint64_t address : addresses) {
    fault_before_ = std::exchange(last_fault_, begin);
    head_.faults.fetch_add(1, std::memory_order_relaxed);
    record_.page_wanted();
    if (!plan_answer(index, address)) others_.push_back(address);
  }
  hands_.fill(pieces_);
  for (const Piece& piece : pieces_) {
    const std::uint64_t address = piece.range.address;
    if (spaces_[index].gone) return;
    if (!conclude(index, piece, true))
      spaces_[index].deferred.push_back(address);  // an event comes first
    else
      note_density(index, address);
    note_latency(begin);
  }
  for (const std::uint64_t address : others_) {
    if (spaces_[index].gone) return;
    answer_other(index, address);
    note_latency(begin);
  }
}

/// False where there is nothing to fill in, or one of the pieces brings it already.
bool Worker::plan_answer(std::size_t index, std::uint64_t address) {
  Space& space = spaces_[index];
  const auto stored = space.missing.find(address);
  if (!stored) return false;
  StoredRange range = cluster_around(space, *stored);
  for (const Piece& piece : pieces_) {
    if (address >= piece.range.address && address < piece.range.end()) return false;
    if (address < piece.range.address && range.end() > piece.range.address)
      range.pages = (piece.range.address - address) / kPageSize;
  }
  pieces_.push_back(piece_of(index, range, true));
  space.expected = range.end();
  return true;
}

/// Nothing is stored there, or a piece was to bring it.
void Worker::answer_other(std::size_t index, std::uint64_t address) {
  Space& space = spaces_[index];
  if (const auto stored = space.missing.find(address)) {  // that piece ended before it
    if (!fill_first(index, *stored, true)) space.deferred.push_back(address);
    return;
  }
  head_.zero_faults.fetch_add(1, std::memory_order_relaxed);
  switch (space.faults->try_zero(address, kPageSize).stop) {
    case Stop::none:
      break;
    case Stop::changing:
      space.deferred.push_back(address);
      break;
    case Stop::process_gone:
      drop(index);
      break;
    default:
      space.faults->wake(address, address + kPageSize);
  }
}

void Worker::note_latency(Clock::time_point begin) {
  const auto took = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - begin);
  const auto bucket = std::bit_width(static_cast<std::uint64_t>(took.count()));
  head_.latency[std::min<std::size_t>(bucket, kLatencyBuckets - 1)].fetch_add(
      1, std::memory_order_relaxed);
}

void Worker::note_density(std::size_t index, std::uint64_t address) {
  Space& space = spaces_[index];
  if (++space.faults_in[address / kSmall] != kManyFaults) return;
  const auto want = [&](std::uint64_t size) {
    const std::uint64_t start = address / size * size;
    wanted_.push_back({index, start, start + size});
  };
  want(++space.dense_in[address / kLarge] == kManyAreas ? kLarge : kSmall);
}

/// Fills a piece of what is likely to be touched next.  False when there is nothing.
bool Worker::fill_wanted() {
  while (!wanted_.empty()) {
    Wanted& wanted = wanted_.front();
    const auto next = spaces_[wanted.space].missing.next(wanted.start);
    if (!next || next->address >= wanted.end) {
      wanted_.pop_front();
      continue;
    }
    StoredRange range = *next;
    range.pages =
        std::min({range.pages, kLargestCluster, (wanted.end - range.address) / kPageSize});
    wanted.start = range.address + kPageSize;  // at the least
    fill(wanted.space, range, true);
    return true;
  }
  return false;
}

/// More than the page that is wanted, where that is likely to be wanted too or costs nothing.
StoredRange Worker::cluster_around(Space& space, const StoredRange& stored) const {
  space.cluster =
      stored.address == space.expected ? std::min(space.cluster * 2, kLargestCluster) : 1;
  StoredRange range = stored;
  range.pages = std::min(range.pages, space.cluster);
  if (store_.encoding() == Encoding::zstd) {
    // The whole frame has to be decoded anyway.
    const std::uint64_t frame_end =
        (stored.first_page / format::kFramePages + 1) * format::kFramePages;
    range.pages = std::max(range.pages, std::min(stored.pages, frame_end - stored.first_page));
  }
  return range;
}

/// Of the address spaces that the process has forked we do not know whose they are, and so nothing
/// of their guards.
Piece Worker::piece_of(std::size_t index, const StoredRange& range, bool awaited) const {
  return {.faults = spaces_[index].faults,
          .pagemap = index == 0 ? pagemap_ : nullptr,
          .range = range,
          .awaited = awaited,
          .guards = {},
          .unreadable = {},
          .result = {},
          .failure = {}};
}

bool Worker::fill(std::size_t index, const StoredRange& range, bool wanted) {
  Piece piece = piece_of(index, range, false);
  hands_.fill({&piece, 1});
  return conclude(index, piece, wanted);
}

bool Worker::conclude(std::size_t index, const Piece& piece, bool wanted) {
  if (piece.failure) std::rethrow_exception(piece.failure);
  Space& space = spaces_[index];
  const StoredRange& range = piece.range;
  // What lay under guards is gone for good.
  for (const sys::PageRange& guard : piece.guards) space.missing.erase(guard.start, guard.end);
  if (range.pages == 0) return true;
  if (wanted) record_.note(range);
  if (piece.unreadable) {
    if (range.pages > 1) return fill_first(index, range, wanted);  // find out which page it is
    poison(space, range, *piece.unreadable);
    return true;
  }
  const sys::FillResult& result = piece.result;
  space.missing.erase(range.address, range.address + result.done_bytes);
  (wanted ? head_.fault_pages : head_.fill_pages)
      .fetch_add(result.done_bytes / kPageSize, std::memory_order_relaxed);
  if (result.done_bytes > 0) return true;
  switch (result.stop) {
    case Stop::none:
    case Stop::changing:
      return false;
    case Stop::process_gone:
      drop(index);
      return true;
    case Stop::unreadable:
      poison(space, range, "the image cannot be read");
      return true;
    case Stop::exists:
      space.missing.erase(range.address, range.address + kPageSize);
      space.faults->wake(range.address, range.address + kPageSize);
      return true;
    case Stop::unmapped:
      return give_up(index, range, wanted);
  }
  return true;
}

/// The page is not where it was.  Either it lies in another mapping than its neighbours, or it is
/// on its way to another place and the message about that is on its way to us: it would be wrong to
/// forget it.  Whoever waits for it looks again.
bool Worker::give_up(std::size_t index, const StoredRange& range, bool wanted) {
  if (range.pages > 1) return fill_first(index, range, wanted);
  spaces_[index].faults->wake(range.address, range.address + kPageSize);
  return true;
}

bool Worker::fill_first(std::size_t index, StoredRange range, bool wanted) {
  range.pages = 1;
  return fill(index, range, wanted);
}

void Worker::poison(Space& space, const StoredRange& range, std::string_view reason) {
  tell(fmt::format("memory at {:#x} of process {} is lost, touching it is SIGBUS: {}",
                   range.address, orders_.pid, reason));
  head_.poisoned_pages.fetch_add(range.pages);  // before anybody can die of it
  space.faults->try_poison(range.address, range.pages * kPageSize);
  space.faults->wake(range.address, range.end());
  space.missing.erase(range.address, range.end());
}

void Worker::retry_deferred(std::size_t index) {
  const std::vector<std::uint64_t> deferred = std::exchange(spaces_[index].deferred, {});
  for (const std::uint64_t address : deferred)
    if (!spaces_[index].gone) answer(index, {&address, 1});
}

/// As much as a fault may have to wait for.
void Worker::fill_piece() {
  for (std::uint64_t pages = 0; pages < PageStore::kMaxPages && fill_next();)
    pages += kLargestCluster;
}

/// In small pieces, so that no guard is made between the look for it and the copy, unless somebody
/// tries to.  False when there is nothing to fill now.
bool Worker::fill_next() {
  for (std::size_t tried = 0; tried < spaces_.size(); ++tried) {
    if (const auto next = spaces_[fill_space_].missing.next(fill_at_)) {
      StoredRange range = *next;
      range.pages = std::min(range.pages, kLargestCluster);
      if (range.first_page >= read_until_ || range.first_page + kReadAhead < read_until_) {
        store_.read_ahead(range.first_page, kReadAhead);
        read_until_ = range.first_page + kReadAhead;
      }
      fill(fill_space_, range, false);
      // What could not be filled now is looked at again on the next way round.
      const bool stays = spaces_[fill_space_].missing.find(range.address).has_value();
      fill_at_ = stays ? range.address + kPageSize : range.address;
      return !stays;
    }
    if (fill_at_ != 0) {
      fill_at_ = 0;  // once more from the start: what has moved
      if (!spaces_[fill_space_].missing.empty()) {
        fill_again_ = Clock::now() + kAgain;
        return false;
      }
    }
    fill_space_ = (fill_space_ + 1) % spaces_.size();
  }
  return false;
}

void Worker::poison_everything() {
  for (Space& space : spaces_) {
    if (space.gone) continue;
    for (const StoredRange& range : space.missing.ranges()) {
      std::uint64_t at = range.address;
      while (at < range.end()) {
        const sys::FillResult result = space.faults->try_poison(at, range.end() - at);
        at += std::max<std::uint64_t>(result.done_bytes, kPageSize);
        if (result.stop == Stop::process_gone) break;
      }
    }
    space.faults->wake(0, 0x7ffffffff000);
  }
}

// ---- whoever takes a snapshot -----------------------------------------------------------------

void Worker::accept_borrower() {
  sys::Fd borrower = sys::try_accept(*listener_);
  if (!borrower) return;
  head_.borrower = borrower.release();
  lend_to_borrower();
}

/// The process stands still: once its messages have been read, none follows.
void Worker::lend_to_borrower() {
  while (!spaces_.front().gone && read_messages(0) != 0) continue;
  sys::Fd borrower{head_.borrower};
  try {
    lend(borrower, image_file_, spaces_.front().missing);
  } catch (const Error& error) {
    tell(fmt::format("nothing is lent to a snapshot: {}", error.what()));
    head_.borrower = 0;
    return;
  }
  borrower.release();  // it stays open, also for the worker after us
}

void Worker::end_recording() {
  record_.finish([&](const std::string& text) { tell(text); });
}

// ---- the loop -------------------------------------------------------------------------------

std::uint64_t Worker::count_missing() const {
  std::uint64_t pages = 0;
  for (const std::size_t i : live_) pages += spaces_[i].missing.pages();
  return pages;
}

bool Worker::finished() const { return live_.empty() || count_missing() == 0; }

bool Worker::may_fill(Clock::time_point now) const {
  if (record_.active() || lent() || count_missing() == 0) return false;
  if (head_.journal_used > shared_.journal().size() / 10 * 9) return true;  // before it is full
  if (orders_.filling == Filling::never) return false;
  return orders_.filling == Filling::now ||
         (head_.waits == 0 && now - std::max(last_fault_, waited_until_) >= kQuiet);
}

int Worker::wait_ms(Clock::time_point now) const {
  const auto until = [&](Clock::time_point at) {
    return static_cast<int>(
        std::max<std::int64_t>(0, std::chrono::ceil<milliseconds>(at - now).count()));
  };
  if (!wanted_.empty() && !lent()) return 0;
  for (const std::size_t i : live_)
    if (!spaces_[i].deferred.empty()) return 1;
  if (may_fill(now)) return until(fill_again_);
  int wait = static_cast<int>(kLook.count());
  if (record_.active()) return record_.next() ? std::min(wait, until(*record_.next())) : wait;
  if (orders_.filling == Filling::idle && head_.waits == 0)
    wait = std::min(wait, until(std::max(last_fault_, waited_until_) + kQuiet));
  return wait;
}

Worker::End Worker::serve(const sys::Fd& partner) {
  // Whoever waits for a page waits for us.  No more than that: once it has its page, it is to go
  // before what we do next on its CPU.
  sys::try_set_nice(-4);
  resume_pending();
  wake_everybody();
  if (lent()) lend_to_borrower();  // the worker before us may not have come to it
  std::vector<::pollfd> waits;
  while (!finished()) {
    head_.missing_pages = count_missing();
    head_.spaces = live_.size();
    if (head_.waits != 0) waited_until_ = Clock::now();
    waits.clear();
    waits.push_back({partner.get(), POLLIN, 0});
    waits.push_back({process_ended_ ? -1 : process_.get(), POLLIN, 0});
    waits.push_back(lent() ? ::pollfd{head_.borrower, 0, 0}  // until it hangs up
                           : ::pollfd{listener_ != nullptr ? listener_->get() : -1, POLLIN, 0});
    const std::size_t first = waits.size();
    const std::vector<std::size_t> watched = live_;
    for (const std::size_t i : watched) waits.push_back({spaces_[i].faults->fd(), POLLIN, 0});
    ::poll(waits.data(), waits.size(), wait_ms(Clock::now()));

    if (waits[2].revents != 0) {
      if (lent())
        sys::Fd{head_.borrower.exchange(0)};  // closes it
      else
        accept_borrower();
    }
    bool busy = false;
    for (std::size_t i = 0; i < watched.size(); ++i) {
      if ((waits[first + i].revents & POLLIN) == 0 || spaces_[watched[i]].gone) continue;
      read_messages(watched[i]);
      look_out(watched[i]);
      busy = true;
    }
    if (waits[0].revents != 0) return End::partner_gone;
    if (waits[1].revents != 0) {
      process_ended_ = true;
      record_.process_ended();
      wake_everybody();  // its memory is gone unless it has been handed on
    }
    const auto now = Clock::now();
    if (now - last_look_ >= kLook) {
      last_look_ = now;
      if (!busy) wake_everybody();
    }
    if (record_.active() && !process_ended_ && record_.wants_files(now)) record_.look_at_files();
    if (record_.active() && !process_ended_ && now - last_fault_ >= kQuietRecord)
      record_.keep_so_far();
    if (record_.active() && (process_ended_ || record_.is_over(now))) end_recording();
    for (const std::size_t i : watched)
      if (!spaces_[i].deferred.empty()) retry_deferred(i);
    if (!busy && !lent() && fill_wanted()) continue;
    if (!busy && may_fill(now) && now >= fill_again_) fill_piece();
  }
  head_.missing_pages = count_missing();
  head_.complete = 1;
  // Before anything that others wait for is closed: then nothing is registered any more.
  for (Space& space : spaces_) delete std::exchange(space.faults, nullptr);
  make_huge_pages();
  if (record_.active()) await_end_of_record();
  return End::complete;
}

/// Nothing is missing, or its memory is gone since it ends this very moment.  What it wanted for
/// its last output shows at its end.
void Worker::await_end_of_record() {
  // Who takes a snapshot has nothing to ask any more.
  if (listener_ != nullptr && *listener_) {
    sys::shut_down(*listener_, 3);
    while (sys::try_accept(*listener_)) continue;
  }
  const auto now = Clock::now();
  const auto left = record_.end().value_or(now + orders_.record_for) - now;
  const auto patience = std::max(milliseconds{0}, std::chrono::ceil<milliseconds>(left));
  if (!process_ended_ && sys::await_end(process_, patience)) record_.process_ended();
  end_recording();
}

/// Memory was filled a small page at a time.  Where the process wants huge ones, and all of one is
/// there, so that it gets no larger.
void Worker::make_huge_pages() {
  constexpr std::uint64_t kHuge = std::uint64_t{2} << 20;
  if (process_ended_ || pagemap_ == nullptr) return;
  try {
    std::vector<sys::PageRange> present;
    for (const state::Mapping& mapping : image_.manifest().process->address_space->mappings) {
      if (mapping.kind() != state::MappingKind::anonymous ||
          !has(mapping, state::MappingFlag::huge_pages))
        continue;
      present.clear();
      pagemap_->private_pages(mapping.start(), mapping.end(), present, guards_);
      for (const sys::PageRange& range : present) {
        const std::uint64_t start = (range.start + kHuge - 1) / kHuge * kHuge;
        for (std::uint64_t at = start; at + kHuge <= range.end; at += kHuge)
          sys::try_make_huge_pages(process_, {at, kHuge});
      }
    }
  } catch (const Error&) {
    // It has ended.
  }
}

/// A handler that sleeps has to be woken for every fault, and so has the CPU it was on: 10 to 40
/// µs. While faults come thick, it looks for the next one instead.
void Worker::look_out(std::size_t index) {
  const auto begin = Clock::now();
  while (!spaces_[index].gone && last_fault_ - fault_before_ < kThick &&
         Clock::now() - last_fault_ < kThick) {
    if (read_messages(index) == 0 && (lent() || !fill_wanted())) sys::yield();
    if (Clock::now() - begin > kLookOut) return;  // others want something too
  }
}

void Worker::tell(const std::string& text) const { sys::send_text(socket_, text); }

}  // namespace icecore::pager
