// SPDX-License-Identifier: Apache-2.0
#include "sys/landlock.hpp"

#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "sys/fd.hpp"
#include "sys/process.hpp"

namespace icecore::sys {
namespace {

constexpr int kMostLayers = 16;

/// Restricts the calling thread for the rest of its life.
bool has_layers_already() {
  const ::landlock_ruleset_attr one{.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_BLOCK};
  const auto rules = static_cast<int>(::syscall(SYS_landlock_create_ruleset, &one, sizeof one, 0));
  if (rules < 0) return false;
  const Fd owned{rules};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
  int added = 0;
  while (added < kMostLayers && ::syscall(SYS_landlock_restrict_self, rules, 0) == 0) ++added;
  return added < kMostLayers;
}

std::future<bool> known(bool answer) {
  std::promise<bool> promise;
  promise.set_value(answer);
  return promise.get_future();
}

}  // namespace

bool may_have_landlock() noexcept {
  return ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION) >= 0 ||
         (errno != ENOSYS && errno != EOPNOTSUPP);
}

std::future<bool> lives_under_landlock() {
  if (!may_have_landlock()) return known(false);
  void* head = nullptr;
  std::size_t size = 0;
  if (::syscall(SYS_get_robust_list, 1, &head, &size) == 0) return known(false);
  const SignalsBlocked blocked;  // the thread inherits the mask
  return std::async(std::launch::async, has_layers_already);
}

}  // namespace icecore::sys
