// SPDX-License-Identifier: Apache-2.0
#include "sys/userfaultfd.hpp"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include "sys/call.hpp"

namespace icecore::sys {

Userfaultfd::Userfaultfd(Fd fd) : fd_(std::move(fd)) {
  ::uffdio_api api{.api = UFFD_API, .features = 0, .ioctls = 0};
  checked([&] { return ::ioctl(fd_.get(), UFFDIO_API, &api); }, "open the userfaultfd interface");
}

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
    ::uffdio_copy copy{.dst = address,
                       .src = reinterpret_cast<std::uint64_t>(pages.data()),
                       .len = pages.size(),
                       .mode = 0,
                       .copy = 0};
    if (::ioctl(fd_.get(), UFFDIO_COPY, &copy) == 0) return;
    // A copy that stopped part-way says how far it came; so does one that must be tried again.
    const int err = errno;
    if (copy.copy <= 0 && err != EAGAIN && err != EINTR)
      throw_errno(err, fmt::format("fill memory at {:#x}", address));
    const auto done = copy.copy > 0 ? static_cast<std::size_t>(copy.copy) : 0;
    address += done;
    pages = pages.subspan(done);
  }
}

}  // namespace icecore::sys
