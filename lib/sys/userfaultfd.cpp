// SPDX-License-Identifier: Apache-2.0
#include "sys/userfaultfd.hpp"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cstring>

#include "sys/call.hpp"

// Debian 12's headers lack it.
#ifndef UFFDIO_POISON
struct uffdio_poison {
  struct uffdio_range range;
  __u64 mode;
  __s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

namespace icecore::sys {
namespace {

static_assert(sizeof(::uffd_msg) == sizeof(PageMessage));

constexpr std::uint64_t kEvents = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
                                  UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP;

FillResult::Stop reason(int err) {
  switch (err) {
    case EEXIST:
      return FillResult::Stop::exists;
    case EAGAIN:
    case EINTR:
    case ENOMEM:
      return FillResult::Stop::changing;
    case EFAULT:
      return FillResult::Stop::unreadable;
    case ESRCH:
      return FillResult::Stop::process_gone;
    default:
      return FillResult::Stop::unmapped;
  }
}

/// `done`: what the kernel wrote, negative when nothing was done.
FillResult result_of(int status, std::int64_t done) {
  if (status == 0) return {.done_bytes = static_cast<std::size_t>(done)};
  const int err = errno;
  if (done > 0)
    return {.stop = FillResult::Stop::changing, .done_bytes = static_cast<std::size_t>(done)};
  return {.stop = reason(err)};
}

}  // namespace

PageEvent decode(const PageMessage& raw) {
  ::uffd_msg message;
  std::memcpy(&message, raw.data(), sizeof message);
  PageEvent event;
  switch (message.event) {
    case UFFD_EVENT_PAGEFAULT:
      event.kind = PageEvent::Kind::fault;
      event.start = message.arg.pagefault.address;
      break;
    case UFFD_EVENT_FORK:
      event.kind = PageEvent::Kind::fork;
      event.fd = static_cast<int>(message.arg.fork.ufd);
      break;
    case UFFD_EVENT_REMAP:
      event.kind = PageEvent::Kind::remap;
      event.start = message.arg.remap.from;
      event.end = message.arg.remap.from + message.arg.remap.len;
      event.to = message.arg.remap.to;
      break;
    case UFFD_EVENT_REMOVE:
    case UFFD_EVENT_UNMAP:
      event.kind =
          message.event == UFFD_EVENT_REMOVE ? PageEvent::Kind::remove : PageEvent::Kind::unmap;
      event.start = message.arg.remove.start;
      event.end = message.arg.remove.end;
      break;
    default:
      break;
  }
  return event;
}

Userfaultfd::Userfaultfd(Fd fd, Use use) : fd_(std::move(fd)) {
  ::uffdio_api api{.api = UFFD_API, .features = use == Use::events ? kEvents : 0, .ioctls = 0};
  checked([&] { return ::ioctl(fd_.get(), UFFDIO_API, &api); }, "open the userfaultfd interface");
}

Userfaultfd Userfaultfd::opened(Fd fd) { return Userfaultfd{std::move(fd)}; }

void Userfaultfd::register_missing(std::uint64_t start, std::uint64_t end) const {
  ::uffdio_register range{.range = {.start = start, .len = end - start},
                          .mode = UFFDIO_REGISTER_MODE_MISSING,
                          .ioctls = 0};
  checked([&] { return ::ioctl(fd_.get(), UFFDIO_REGISTER, &range); },
          "register memory at {:#x} for filling", start);
}

void Userfaultfd::unregister(std::uint64_t start, std::uint64_t end) const {
  ::uffdio_range range{.start = start, .len = end - start};
  checked([&] { return ::ioctl(fd_.get(), UFFDIO_UNREGISTER, &range); },
          "unregister memory at {:#x}", start);
}

void Userfaultfd::copy(std::uint64_t address, std::span<const std::byte> pages) const {
  while (!pages.empty()) {
    const FillResult result = try_copy(address, pages);
    const bool stopped =
        result.stop != FillResult::Stop::none &&
        (result.stop != FillResult::Stop::changing || (result.done_bytes == 0 && errno == ENOMEM));
    if (stopped) throw_errno(errno, fmt::format("fill memory at {:#x}", address));
    address += result.done_bytes;
    pages = pages.subspan(result.done_bytes);
  }
}

FillResult Userfaultfd::try_copy(std::uint64_t address,
                                 std::span<const std::byte> pages) const noexcept {
  ::uffdio_copy copy{.dst = address,
                     .src = reinterpret_cast<std::uint64_t>(pages.data()),
                     .len = pages.size(),
                     .mode = 0,
                     .copy = 0};
  const int status = ::ioctl(fd_.get(), UFFDIO_COPY, &copy);
  return result_of(status, copy.copy);
}

FillResult Userfaultfd::try_zero(std::uint64_t address, std::size_t size_bytes) const noexcept {
  ::uffdio_zeropage zero{.range = {.start = address, .len = size_bytes}, .mode = 0, .zeropage = 0};
  const int status = ::ioctl(fd_.get(), UFFDIO_ZEROPAGE, &zero);
  return result_of(status, zero.zeropage);
}

FillResult Userfaultfd::try_poison(std::uint64_t address, std::size_t size_bytes) const noexcept {
  ::uffdio_poison poison{.range = {.start = address, .len = size_bytes}, .mode = 0, .updated = 0};
  const int status = ::ioctl(fd_.get(), UFFDIO_POISON, &poison);
  return result_of(status, poison.updated);
}

void Userfaultfd::wake(std::uint64_t start, std::uint64_t end) const noexcept {
  ::uffdio_range range{.start = start, .len = end - start};
  ::ioctl(fd_.get(), UFFDIO_WAKE, &range);
}

bool Userfaultfd::alive(int descriptor) noexcept {
  // A place where no process has memory of its own: only the answer counts.
  constexpr std::uint64_t kLastPage = 0x7fffffffe000;
  ::uffdio_zeropage nothing{.range = {kLastPage, 4096}, .mode = 0, .zeropage = 0};
  if (::ioctl(descriptor, UFFDIO_ZEROPAGE, &nothing) == 0) return true;
  return errno != ESRCH && errno != ENOTTY && errno != EBADF;
}

std::size_t Userfaultfd::read(std::span<PageMessage> messages) const {
  const ssize_t got = ::read(fd_.get(), messages.data(), messages.size_bytes());
  if (got < 0) {
    if (errno == EAGAIN || errno == EINTR) return 0;
    throw_errno(errno, "read page faults");
  }
  return static_cast<std::size_t>(got) / sizeof(PageMessage);
}

}  // namespace icecore::sys
