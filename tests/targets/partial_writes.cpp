// SPDX-License-Identifier: Apache-2.0
//
// State: threads in blocking writes that have written a part and wait for room for the rest.  Each
// returns all that it was to write, and whoever reads finds every byte once.  A pipe in packet mode
// is the exception: there the call may return what it has written.  "shout N" writes a line of N
// bytes at once.  "account?" is for when all may return less, but what they say is what there is;
// "writers?" names the threads, "interrupted?" counts the SIGUSR1 that they have had.
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <csignal>

#include "blocked.hpp"

using namespace target;

namespace {

constexpr std::size_t kLength = 300'000;
const std::string kOlder = "from before";

int waiting_in(int end) {
  int bytes = 0;
  must(::ioctl(end, FIONREAD, &bytes), "FIONREAD");
  return bytes;
}

/// A writer that is in the middle of its text.
class Writer {
 public:
  enum class Kind { pipe, pipe_in_pieces, packets, socket, socket_message };

  /// `read_before`: so much is read from it while it writes.
  Writer(Kind kind, const std::string& older, std::size_t read_before)
      : kind_(kind), older_(older), read_before_(read_before) {
    must(is_pipe() ? ::pipe2(ends_, O_CLOEXEC | (kind == Kind::packets ? O_DIRECT : 0))
                   : ::socketpair(AF_UNIX, SOCK_STREAM, 0, ends_),
         "pipe");
    begin();
  }

  /// Its end, looked at; then it is in the middle of its text once more.
  void check(bool may_have_returned) {
    if (!may_have_returned) {
      blocked_->await_inside(number());
      require(written_ == 0, name() + ": write has returned by itself");
    }
    for (std::size_t at = read_before_; at < older_.size() + text_.size();) at += expect(at, 4096);
    await([&] { return written_ != 0; }, name() + ": the call never returned");
    require(written_ == static_cast<long>(text_.size()), name() + ": returned " + said(written_));
    require(waiting_in(ends_[0]) == 0, name() + ": more than was written");
    end_of_round();
  }

  /// The same where it may have returned a part, or been interrupted before it wrote any.
  void account() {
    std::size_t at = read_before_;
    const auto promised = [&] {
      return older_.size() + static_cast<std::size_t>(std::max(written_.load(), 0L));
    };
    const auto complete = [&] {
      if (waiting_in(ends_[0]) > 0) at += expect(at, 4096);
      return written_ != 0 && at >= promised();
    };
    await(complete, name() + ": bytes are missing");
    require(written_ > 0 || written_ == -EINTR, name() + ": returned " + said(written_));
    require(at == promised() && waiting_in(ends_[0]) == 0, name() + ": more than was written");
    if (kind_ == Kind::packets)
      require(written_ <= 0 || written_ % 4096 == 0 || written_ == static_cast<long>(text_.size()),
              name() + ": no whole packets");
    end_of_round();
  }

  pid_t tid() const { return blocked_->tid(); }

 private:
  bool is_pipe() const { return kind_ <= Kind::packets; }

  std::string name() const { return "writer " + std::to_string(static_cast<int>(kind_)); }

  void end_of_round() {
    looked_at_ = true;
    looked_at_.notify_one();
    blocked_->result();
    begin();
  }

  long number() const {
    switch (kind_) {
      case Kind::pipe:
      case Kind::packets:
        return SYS_write;
      case Kind::pipe_in_pieces:
        return SYS_writev;
      case Kind::socket:
        return SYS_sendto;
      case Kind::socket_message:
        return SYS_sendmsg;
    }
    return 0;
  }

  long write_all() const {
    iovec pieces[] = {{const_cast<char*>(text_.data()), 1234},
                      {const_cast<char*>(text_.data()) + 1234, text_.size() - 1234}};
    msghdr message{};
    message.msg_iov = pieces;
    message.msg_iovlen = 2;
    switch (kind_) {
      case Kind::pipe:
      case Kind::packets:
        return raw(SYS_write, ends_[1], text_.data(), text_.size());
      case Kind::pipe_in_pieces:
        return raw(SYS_writev, ends_[1], pieces, 2);
      case Kind::socket:
        return raw(SYS_sendto, ends_[1], text_.data(), text_.size(), 0, nullptr, 0);
      case Kind::socket_message:
        return raw(SYS_sendmsg, ends_[1], &message, 0);
    }
    return 0;
  }

  /// Reads up to `most` bytes, which are those from `at` on.
  std::size_t expect(std::size_t at, std::size_t most) const {
    std::string found(most, '\0');
    const long count = must(::read(ends_[0], found.data(), found.size()), "read");
    require(count > 0, name() + ": the end of the stream");
    const std::string wanted = (older_ + text_).substr(at, static_cast<std::size_t>(count));
    require(found.substr(0, wanted.size()) == wanted,
            name() + ": other bytes from " + std::to_string(at) + " on");
    return static_cast<std::size_t>(count);
  }

  void begin() {
    text_.clear();
    for (std::uint64_t seed = random_number(), i = 0; text_.size() < kLength; ++i)
      text_ += std::to_string(pattern(seed, i));
    // Larger where the rest was written for it.
    if (is_pipe()) must(::fcntl(ends_[1], F_SETPIPE_SZ, 65536), "F_SETPIPE_SZ");
    if (!older_.empty()) must(::write(ends_[1], older_.data(), older_.size()), "write");
    written_ = 0;
    looked_at_ = false;
    // It stays until it has been looked at: as many threads as before.
    const auto call = [this](long) {
      written_ = write_all();
      looked_at_.wait(false);
      return 0L;
    };
    blocked_ = std::make_unique<Blocked>(Wait{.number = number(), .call = call}, -1);
    for (std::size_t at = 0; at < read_before_;)
      at += expect(at, std::min<std::size_t>(read_before_ - at, 4096));
    blocked_->await_inside(number());
  }

  Kind kind_;
  std::string older_;
  std::size_t read_before_;
  int ends_[2];
  std::string text_;
  std::atomic<long> written_ = 0;
  std::atomic<bool> looked_at_ = false;
  std::unique_ptr<Blocked> blocked_;
};

}  // namespace

int main() {
  static std::atomic<int> interrupted = 0;
  struct sigaction action {};
  action.sa_handler = [](int) { ++interrupted; };  // and no SA_RESTART
  must(::sigaction(SIGUSR1, &action, nullptr), "sigaction");
  Writer fresh{Writer::Kind::pipe, "", 0};
  Writer behind_older{Writer::Kind::pipe_in_pieces, kOlder, 0};
  Writer half_read{Writer::Kind::pipe, kOlder, 100'000};
  Writer to_socket{Writer::Kind::socket, kOlder, 0};
  Writer message{Writer::Kind::socket_message, "", 0};
  Writer packets{Writer::Kind::packets, "", 0};
  const std::vector<Writer*> all{&fresh, &behind_older, &half_read, &to_socket, &message, &packets};
  const auto check = [&] {
    packets.account();
    fresh.check(false);
    behind_older.check(false);
    half_read.check(true);
    to_socket.check(true);
    message.check(true);
  };
  // One long line of standard output, in one call.
  const auto shout = [](const std::string& length) {
    const std::string line = std::string(std::stoul(length), 'x') + "\n";
    const long result = raw(SYS_write, 1, line.data(), line.size());
    return result == static_cast<long>(line.size()) ? "whole" : "returned " + said(result);
  };
  const auto account = [&](auto&) {
    for (Writer* const writer : all) writer->account();
    return "ok";
  };
  const auto writers = [&](auto&) {
    std::string tids;
    for (const Writer* const writer : all) tids += std::to_string(writer->tid()) + " ";
    return tids;
  };
  return serve(check, {{"shout", shout},
                       {"account?", account},
                       {"writers?", writers},
                       {"interrupted?", [](auto&) { return std::to_string(interrupted); }}});
}
