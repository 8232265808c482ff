// SPDX-License-Identifier: Apache-2.0
#include "support/conversation.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>

#include <stdexcept>

namespace test {
namespace {

/// Nobody reads any more: an error of write(2), not the end of the test.
void ignore_broken_pipes() { ::signal(SIGPIPE, SIG_IGN); }

}  // namespace

Conversation make_conversation() {
  ignore_broken_pipes();
  return Conversation{Pipe{}, Pipe{}};
}

Conversation::Conversation(Pipe to, Pipe from)
    : its_input_(std::move(to.read_end)),
      its_output_(std::move(from.write_end)),
      to_(std::move(to.write_end)),
      from_(std::move(from.read_end)) {}

void Conversation::begin() {
  Descriptor{std::move(its_input_)};
  Descriptor{std::move(its_output_)};
}

std::string Conversation::ask(std::string_view question, std::chrono::milliseconds patience) {
  tell(question);
  return hear(patience);
}

void Conversation::tell(std::string_view line) {
  std::string bytes{line};
  bytes += '\n';
  must(::write(to_.get(), bytes.data(), bytes.size()), "write to the process");
}

std::string Conversation::hear(std::chrono::milliseconds patience) {
  const Deadline deadline{patience};
  std::size_t end;
  while ((end = unread_.find('\n')) == std::string::npos) {
    ::pollfd wait = {from_.get(), POLLIN, 0};
    const int count = ::poll(&wait, 1, deadline.left_ms());
    if (count == -1 && errno == EINTR) continue;
    if (must(count, "poll") == 0) throw std::runtime_error{"no answer; said so far: " + unread_};
    char bytes[4096];
    const ssize_t got = must(::read(from_.get(), bytes, sizeof bytes), "read from the process");
    if (got == 0) throw std::runtime_error{"the process hung up; said before: " + unread_};
    unread_.append(bytes, static_cast<std::size_t>(got));
  }
  std::string line = unread_.substr(0, end);
  unread_.erase(0, end + 1);
  return line;
}

bool Conversation::all_read() const {
  int unread = 0;
  must(::ioctl(to_.get(), FIONREAD, &unread), "ask a pipe for its contents");
  return unread == 0;
}

std::optional<std::string> Conversation::heard() {
  ::pollfd wait = {from_.get(), POLLIN, 0};
  if (must(::poll(&wait, 1, 0), "poll") == 0 || (wait.revents & POLLIN) == 0) return std::nullopt;
  return hear();
}

}  // namespace test
