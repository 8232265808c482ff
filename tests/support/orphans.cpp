// SPDX-License-Identifier: Apache-2.0
#include "support/orphans.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <fstream>
#include <iterator>
#include <stdexcept>
#include <vector>

namespace test {
namespace {

std::string description_of(pid_t pid) {
  std::ifstream status{"/proc/" + std::to_string(pid) + "/status"};
  return {std::istreambuf_iterator<char>{status}, {}};
}

/// More than anybody needs to die, or to answer.
constexpr std::chrono::milliseconds kOrphanPatience = std::chrono::seconds{5};

/// Reaps the children that have ended.  True when there are no others.
bool reap() {
  pid_t pid;
  while ((pid = ::waitpid(-1, nullptr, WNOHANG | __WALL)) > 0) {
  }
  return pid == -1;
}

Descriptor open_child(pid_t pid) {
  return Descriptor{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))};
}

enum class Found { nobody, somebody_who_speaks, somebody_silent };

Found listen(const Conversation& conversation) {
  const Deadline deadline{kOrphanPatience};
  while (!reap()) {
    std::vector<Descriptor> ends;
    std::vector<::pollfd> waits = {{conversation.from(), POLLIN, 0}};
    for (const pid_t child : children_of(::getpid())) {
      ends.push_back(open_child(child));
      waits.push_back({ends.back().get(), POLLIN, 0});
    }
    ::poll(waits.data(), waits.size(), deadline.left_ms());
    if ((waits[0].revents & POLLIN) != 0) return Found::somebody_who_speaks;
    if (deadline.passed()) return Found::somebody_silent;
  }
  return Found::nobody;
}

std::string describe_children() {
  std::string text;
  for (const pid_t child : children_of(::getpid())) text += description_of(child);
  return text;
}

/// In whatever order: the init of a pid namespace ends after all others have been reaped.
void end_children() {
  for (const pid_t child : children_of(::getpid())) ::kill(child, SIGKILL);
  const Deadline deadline{kPatience};
  while (!reap())
    if (deadline.passed()) throw std::runtime_error{"a killed orphan does not end"};
}

}  // namespace

OrphanAdopter::OrphanAdopter() { must(::prctl(PR_SET_CHILD_SUBREAPER, 1), "CHILD_SUBREAPER"); }

OrphanAdopter::~OrphanAdopter() { ::prctl(PR_SET_CHILD_SUBREAPER, 0); }

void OrphanAdopter::await_only_child(pid_t pid) const {
  const std::vector<pid_t> only{pid};
  const auto alone = [&] {
    for (const pid_t child : children_of(::getpid()))
      if (child != pid) ::waitpid(child, nullptr, WNOHANG | __WALL);
    return children_of(::getpid()) == only;
  };
  await(alone, "a helper of icecore never ends");
}

std::string OrphanAdopter::find_half_built(Conversation& conversation) {
  if (reap()) return {};
  conversation.tell("ping");
  const Found found = listen(conversation);
  const std::string description = describe_children();
  end_children();
  if (found == Found::somebody_silent) return description;
  if (found == Found::somebody_who_speaks && conversation.hear() != "pong")
    return "somebody answers something else";
  return {};
}

}  // namespace test
