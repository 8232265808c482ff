// SPDX-License-Identifier: Apache-2.0
#include "pager/pager_process.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <syslog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "icecore/error.hpp"
#include "image/image_reader.hpp"
#include "pager/loan.hpp"
#include "pager/worker.hpp"
#include "sys/files.hpp"
#include "sys/own_program.hpp"
#include "sys/process.hpp"
#include "sys/spawn.hpp"

namespace icecore::pager {
namespace {

constexpr int kSocket = 3;
constexpr int kImage = 4;
constexpr const char* kReady = "ready";
constexpr int kNothingMissing = 0;
constexpr int kFailed = 1;
constexpr int kNoMemory = 2;

// ---- the program ----------------------------------------------------------------------------

/// What both processes of a pager have.
struct Pager {
  const sys::Fd& listener;
  const Shared& shared;
  const sys::Fd& image_file;
  const ImageReader& image;
  int faults;
  const sys::Fd& process;
  const sys::Fd& socket;
  const sys::PagemapScan* pagemap;
  const sys::OutputMeter* output;
};

void tell(const Pager& pager, const std::string& text) {
  sys::send_text(pager.socket, text);
  ::syslog(LOG_ERR, "%s", text.c_str());
}

/// What workers die of again and again, at once and without serving anything, no other will
/// survive.
class Patience {
 public:
  bool ends(std::uint64_t served) {
    const auto now = std::chrono::steady_clock::now();
    const bool in_vain = served == served_ && now - last_ < std::chrono::milliseconds{100};
    deaths_ = in_vain ? deaths_ + 1 : 0;
    served_ = served;
    last_ = now;
    return deaths_ >= 100;
  }

 private:
  std::chrono::steady_clock::time_point last_;
  std::uint64_t served_ = 0;
  int deaths_ = 0;
};

std::uint64_t served(const Head& head) {
  return head.fault_pages + head.zero_faults + head.fill_pages + head.journal_used;
}

/// Without memory nothing can be said.
void try_tell(const Pager& pager, std::string_view what) noexcept {
  try {
    tell(pager, fmt::format("pager of process {}: {}", pager.shared.head().pid, what));
  } catch (const std::exception&) {
    ::syslog(LOG_ERR, "pager: out of memory");
  }
}

Worker make_worker(const Pager& pager) {
  return {pager.shared,  pager.image,  pager.image_file, pager.faults,
          pager.process, pager.socket, pager.pagemap,    pager.output};
}

/// Runs in the worker.  Returns when its keeper has died, else ends the process.
void work(const Pager& pager, const sys::Fd& keeper, bool announce) {
  try {
    Worker worker = make_worker(pager);
    worker.lend_at(pager.listener);
    if (announce) sys::send_text(pager.socket, kReady);
    if (worker.serve(keeper) == Worker::End::complete) ::_exit(kNothingMissing);
  } catch (const std::bad_alloc&) {
    ::_exit(kNoMemory);
  } catch (const std::exception& error) {
    try_tell(pager, error.what());
    ::_exit(kFailed);
  }
}

/// Found out without memory, from what the journal says of children.
bool nobody_is_left(const Pager& pager) noexcept {
  if (sys::Userfaultfd::alive(pager.faults)) return false;
  const auto journal = pager.shared.journal().first(pager.shared.head().journal_used);
  return std::ranges::none_of(journal, [](const JournalEntry& entry) {
    const sys::PageEvent event = sys::decode(entry.message);
    return event.kind == sys::PageEvent::Kind::fork && sys::Userfaultfd::alive(event.fd);
  });
}

/// No memory: whoever waits for a page waits until there is some.  To end would mean zeros.
void wait_for_memory(const Pager& pager) noexcept {
  if (nobody_is_left(pager)) ::_exit(kFailed);
  sys::pause_for(std::chrono::milliseconds{10});
}

/// The process serves no more and must not: its missing memory becomes SIGBUS.
[[noreturn]] void give_up(const Pager& pager) {
  try_tell(pager, "no pager can live: missing memory is SIGBUS");
  for (;;) {
    try {
      make_worker(pager).poison_everything();
      ::_exit(kFailed);
    } catch (const std::exception&) {
      wait_for_memory(pager);
    }
  }
}

/// Runs in the keeper until nothing is missing, and in a worker whose keeper has died: then that
/// becomes the keeper.
[[noreturn]] void keep(const Pager& pager) {
  Patience patience;
  for (bool announce = true;; announce = false) {
    sys::Fd self;
    pid_t child = 0;
    try {
      self = sys::open_process(sys::current_process());
      child = sys::fork_with_one_table();
    } catch (const std::exception&) {
      wait_for_memory(pager);
      continue;
    }
    if (child == 0) {
      work(pager, self, announce);
      patience = {};
    } else {
      const int status = sys::wait_child(child);
      const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
      if (code == kNothingMissing || pager.shared.head().complete != 0) ::_exit(kNothingMissing);
      if (code == kNoMemory)
        wait_for_memory(pager);
      else if (patience.ends(served(pager.shared.head())))
        give_up(pager);
    }
    pager.shared.head().restarts.fetch_add(1);
  }
}

/// A stack cannot grow when there is no memory, and that would be the end of both processes.
void touch_stack() noexcept {
  volatile char room[std::size_t{64} << 10];
  for (std::size_t at = 0; at < sizeof room; at += kPageSize) room[at] = 0;
}

int serve_orders(const sys::Fd& socket) {
  const MappedFile file = MappedFile::of(sys::Fd{kImage}, "the image");
  const ImageReader image{file.bytes()};
  std::vector<sys::Fd> passed = sys::receive_descriptors(socket);
  if (passed.size() != 3) return kFailed;  // the restore has failed
  const Shared shared{std::move(passed[2])};
  // Of what is in the table now nothing is ever closed: both processes use it.
  const int faults = passed[0].release();
  const sys::Fd listener = sys::try_listen(address_of(shared.head().pid, passed[1]));
  const auto pagemap = sys::PagemapScan::try_open(shared.head().pid);
  const auto output = sys::OutputMeter::try_open(shared.head().pid);
  if (output) shared.head().written_bytes = output->written_bytes().value_or(0);  // not its own
  touch_stack();
  keep({listener, shared, file.fd(), image, faults, passed[1], socket,
        pagemap ? &*pagemap : nullptr, output ? &*output : nullptr});
}

// ---- the library's side -----------------------------------------------------------------------

std::string find_program() {
  std::string path = sys::find_own_program("icecore-pager", "ICECORE_PAGER");
  if (path.empty())
    throw Error{Errc::io,
                fmt::format("find the program icecore-pager near {}: it is not installed; "
                            "install it, or restore with --eager",
                            sys::own_file().parent_path().string())};
  return path;
}

}  // namespace

int run() noexcept {
  // It ends when nobody needs it any more, not when a terminal does.
  for (const int signal : {SIGHUP, SIGINT, SIGTERM, SIGPIPE}) ::signal(signal, SIG_IGN);
  const sys::Fd socket{kSocket};
  try {
    // Every process that the one we serve forks is a descriptor.
    auto files = sys::resource_limit(0, RLIMIT_NOFILE);
    files.soft = files.hard;
    sys::set_resource_limit(0, RLIMIT_NOFILE, files);
    // A child of nobody: whoever restores does not have to wait for us.
    if (sys::fork_with_one_table() != 0) ::_exit(0);
    return serve_orders(socket);
  } catch (const std::exception& error) {
    sys::send_text(socket, error.what());
    return kFailed;
  }
}

PagerProcess::PagerProcess(const MappedFile& image) {
  auto [ours, theirs] = sys::make_socket_pair();
  socket_ = std::move(ours);
  pid_ = sys::spawn_program(find_program(), "icecore-pager",
                            std::array{theirs.get(), image.fd().get()});
}

/// What we started has ended as soon as it had made a child of its own.
void PagerProcess::reap() noexcept {
  if (pid_ == 0) return;
  try {
    sys::wait_child(std::exchange(pid_, 0));
  } catch (const Error&) {
    // Somebody else has reaped it.
  }
}

PagerProcess::PagerProcess(PagerProcess&& other) noexcept
    : released_(other.released_),
      pid_(std::exchange(other.pid_, 0)),
      socket_(std::move(other.socket_)),
      shared_(std::move(other.shared_)) {}

PagerProcess::~PagerProcess() {
  reap();
  if (!socket_ || released_) return;
  try {
    sys::shut_down(socket_);  // at which it ends
    sys::wait_hang_up(socket_, std::chrono::seconds{5});
  } catch (const Error&) {
    // Then it ends a little later.
  }
}

void PagerProcess::serve(const Orders& orders, const sys::Userfaultfd& faults,
                         const sys::Fd& process) {
  shared_.emplace(orders);
  sys::send_descriptors(socket_, std::array{faults.fd(), process.get(), shared_->file().get()});
  const auto answer = sys::receive_text(socket_);
  reap();
  if (answer != kReady)
    throw Error{Errc::io, fmt::format("start the pager: {}",
                                      answer ? *answer : "it has ended without a word")};
}

bool PagerProcess::wait_filled(std::optional<std::chrono::milliseconds> patience) const {
  return head().complete != 0 || sys::wait_hang_up(socket_, patience);
}

void PagerProcess::let_it_see_the_end() const {
  constexpr std::chrono::milliseconds kLongest{100}, kOften{1};
  if (head().record == 0) return;
  for (auto left = kLongest; left.count() > 0 && head().end_seen == 0; left -= kOften)
    if (sys::wait_hang_up(socket_, kOften)) return;
}

std::optional<std::string> PagerProcess::message() const { return sys::try_receive_text(socket_); }

}  // namespace icecore::pager
