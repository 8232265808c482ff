// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "image/image_reader.hpp"
#include "memory/missing_pages.hpp"
#include "memory/page_store.hpp"
#include "pager/hands.hpp"
#include "pager/record.hpp"
#include "pager/shared.hpp"
#include "sys/fd.hpp"
#include "sys/pagemap_scan.hpp"
#include "sys/userfaultfd.hpp"

namespace icecore::pager {

/// Serves the page faults of a restored process and of all that it forks, until nothing is missing
/// or nobody is left.
///
/// It may be killed at any moment: all that it knows beyond the orders lies in the journal, from
/// which the next worker builds the same picture.  Messages of the kernel are read straight into
/// the shared memory, so that none is lost; those that were being dealt with are looked at again.
class Worker {
 public:
  /// `file`: the image.  `root`: the userfaultfd of the process.  `process`: its pidfd.  `socket`:
  /// to whoever restored. `pagemap`: of the process; without it guards that it makes are not seen.
  /// `output`: likewise; without it its end is recorded too.
  Worker(const Shared& shared, const ImageReader& image, const sys::Fd& file, int root,
         const sys::Fd& process, const sys::Fd& socket, const sys::PagemapScan* pagemap,
         const sys::OutputMeter* output);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// Whoever connects there is told what is missing, and nothing is filled in but for faults until
  /// he hangs up.  The image is passed on to him.
  void lend_at(const sys::Fd& listener) { listener_ = &listener; }

  enum class End {
    complete,      ///< nothing is missing any more, or nobody is left
    partner_gone,  ///< the process at `partner` has ended
  };
  End serve(const sys::Fd& partner);

  /// When no pager can be had: whoever touches a missing page dies of SIGBUS, and reads no zeros.
  void poison_everything();

 private:
  using Clock = std::chrono::steady_clock;

  /// One address space.
  struct Space {
    /// Never destroyed with the worker, which may end by an exception: the table of descriptors is
    /// also the keeper's, and a userfaultfd that is closed gives zeros.
    const sys::Userfaultfd* faults = nullptr;
    MissingPages missing;
    bool gone = false;
    std::uint64_t expected = 0;  ///< the next fault of a program that reads on
    std::uint64_t cluster = 1;   ///< pages to answer it with
    std::unordered_map<std::uint64_t, std::uint16_t> faults_in;  ///< by kSmall area
    std::unordered_map<std::uint64_t, std::uint16_t> dense_in;   ///< kSmall areas, by kLarge area
    std::vector<std::uint64_t> deferred;  ///< faults that wait until an event has been read
  };

  void replay();
  void resume_pending();
  void wake_everybody();
  std::size_t read_messages(std::size_t space);
  void look_out(std::size_t space);
  void handle_pending(std::size_t space);
  void note_event(std::size_t space, sys::PageMessage& message);
  void apply(std::size_t space, const sys::PageMessage& message);
  void drop(std::size_t space);

  void answer(std::size_t space, std::span<const std::uint64_t> addresses);
  bool plan_answer(std::size_t space, std::uint64_t address);
  void answer_other(std::size_t space, std::uint64_t address);
  void note_latency(Clock::time_point begin);
  void note_density(std::size_t space, std::uint64_t address);
  bool fill_wanted();
  StoredRange cluster_around(Space& space, const StoredRange& stored) const;
  Piece piece_of(std::size_t space, const StoredRange& range, bool awaited) const;
  /// These return true when the page at the beginning of `range` needs no more attention. `wanted`:
  /// it belongs into the working set.
  bool fill(std::size_t space, const StoredRange& range, bool wanted);
  bool fill_first(std::size_t space, StoredRange range, bool wanted);
  bool conclude(std::size_t space, const Piece& piece, bool wanted);
  bool give_up(std::size_t space, const StoredRange& range, bool wanted);
  void poison(Space& space, const StoredRange& range, std::string_view reason);
  void retry_deferred(std::size_t space);
  void fill_piece();
  bool fill_next();

  bool lent() const { return head_.borrower != 0; }
  void accept_borrower();
  void lend_to_borrower();

  void end_recording();
  void await_end_of_record();

  void make_huge_pages();

  bool finished() const;
  std::uint64_t count_missing() const;
  int wait_ms(Clock::time_point now) const;
  bool may_fill(Clock::time_point now) const;
  void tell(const std::string& text) const;

  const Shared& shared_;
  Head& head_;
  const Orders orders_;
  const ImageReader& image_;
  const sys::Fd& image_file_;
  const PageStore store_;
  Hands hands_;
  // Scratch.
  std::vector<Piece> pieces_;
  std::vector<std::uint64_t> others_;
  std::vector<sys::PageRange> guards_;
  const sys::Fd& process_;
  const sys::Fd& socket_;
  const sys::PagemapScan* const pagemap_;
  const sys::Fd* listener_ = nullptr;
  std::deque<Space> spaces_;
  std::vector<std::size_t> live_;  // of these, those that are not gone
  bool process_ended_ = false;
  Record record_;
  Clock::time_point began_ = Clock::now();
  Clock::time_point last_fault_ = began_;
  Clock::time_point waited_until_ = began_;  // for the process to be started
  Clock::time_point fault_before_ = began_ - std::chrono::hours{1};
  Clock::time_point last_look_ = began_;
  /// Where so much has been touched that the rest is likely to be.
  struct Wanted {
    std::size_t space;
    std::uint64_t start, end;
  };
  std::deque<Wanted> wanted_;
  std::size_t fill_space_ = 0;
  std::uint64_t fill_at_ = 0;
  std::uint64_t read_until_ = 0;  ///< stored page; up to there the disk has been asked to read
  Clock::time_point fill_again_ = began_;
};

}  // namespace icecore::pager
