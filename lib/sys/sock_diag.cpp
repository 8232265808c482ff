// SPDX-License-Identifier: Apache-2.0
#include "sys/sock_diag.hpp"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>

#include "sys/call.hpp"
#include "sys/socket.hpp"

namespace icecore::sys {
namespace {

/// What an answer says of one socket beyond its message.
struct Attribute {
  int type;
  std::span<const std::byte> value;

  /// 0 beyond its end.
  int byte() const { return value.empty() ? 0 : std::to_integer<int>(value.front()); }
  std::uint32_t word(std::size_t index) const {
    std::uint32_t result = 0;
    if ((index + 1) * sizeof result <= value.size())
      std::memcpy(&result, value.data() + index * sizeof result, sizeof result);
    return result;
  }
};

template <class Each>
void for_each_attribute(std::span<const std::byte> bytes, Each each) {
  for (std::size_t at = 0; at + sizeof(::nlattr) <= bytes.size();) {
    ::nlattr header{};
    std::memcpy(&header, bytes.data() + at, sizeof header);
    if (header.nla_len < sizeof header || header.nla_len > bytes.size() - at) return;
    each(Attribute{header.nla_type,
                   bytes.subspan(at + sizeof header, header.nla_len - sizeof header)});
    at += NLMSG_ALIGN(header.nla_len);
  }
}

enum class About : std::uint16_t { one = 0, all = NLM_F_DUMP };

/// Asks, and gives every answer to `each`: a Message, and its attributes as bytes.
template <class Message, class Question, class Each>
void ask(const Fd& netlink, const Question& question, About about, const std::string& subject,
         Each each) {
  struct Request {
    ::nlmsghdr header;
    Question question;
  } request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST;
  request.header.nlmsg_flags |= static_cast<std::uint16_t>(about);
  request.question = question;
  checked([&] { return ::send(netlink.get(), &request, sizeof request, 0); }, "ask about {}",
          subject);
  alignas(::nlmsghdr) std::array<std::byte, std::size_t{64} << 10> answers;
  do {
    auto left = static_cast<std::size_t>(
        checked([&] { return ::recv(netlink.get(), answers.data(), answers.size(), 0); },
                "ask about {}", subject));
    for (auto* header = reinterpret_cast<const ::nlmsghdr*>(answers.data()); NLMSG_OK(header, left);
         header = NLMSG_NEXT(header, left)) {
      if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY) return;  // the end, or an error
      if (header->nlmsg_len < NLMSG_SPACE(sizeof(Message))) continue;
      Message message{};
      std::memcpy(&message, NLMSG_DATA(header), sizeof message);
      const std::span bytes{reinterpret_cast<const std::byte*>(header), header->nlmsg_len};
      each(message, bytes.subspan(NLMSG_SPACE(sizeof message)));
    }
  } while (about == About::all);
}

}  // namespace

UnixSockets::UnixSockets()
    : netlink_(make_socket({AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_SOCK_DIAG})) {}

UnixSocket UnixSockets::find(std::uint64_t inode) const {
  ::unix_diag_req question{};
  question.sdiag_family = AF_UNIX;
  question.udiag_states = ~0U;
  question.udiag_ino = static_cast<std::uint32_t>(inode);
  question.udiag_show = UDIAG_SHOW_VFS | UDIAG_SHOW_PEER | UDIAG_SHOW_ICONS | UDIAG_SHOW_RQLEN;
  question.udiag_cookie[0] = question.udiag_cookie[1] = ~0U;

  std::optional<UnixSocket> found;
  const auto note = [&](const Attribute& attribute) {
    switch (attribute.type) {
      case UNIX_DIAG_PEER:
        found->peer = attribute.word(0);
        break;
      case UNIX_DIAG_VFS:  // the inode, then the device in the kernel's form
        found->file = {::makedev(attribute.word(1) >> 20, attribute.word(1) & 0xfffff),
                       attribute.word(0)};
        break;
      case UNIX_DIAG_ICONS:
        for (std::size_t i = 0; i < attribute.value.size() / sizeof(std::uint32_t); ++i)
          found->waiting.push_back(attribute.word(i));
        break;
      case UNIX_DIAG_RQLEN:
        found->backlog = attribute.word(1);
        break;
      case UNIX_DIAG_SHUTDOWN:
        found->shut = attribute.byte();
        break;
      default:
        break;
    }
  };
  ask<::unix_diag_msg>(netlink_, question, About::one, fmt::format("socket {}", inode),
                       [&](const ::unix_diag_msg&, std::span<const std::byte> attributes) {
                         found.emplace();
                         for_each_attribute(attributes, note);
                       });
  if (!found)
    throw Error{Errc::unsupported, "unix socket: the kernel does not tell its state (sock_diag)"};
  return *found;
}

std::map<std::uint64_t, int> shut_udp_sockets(int family, int protocol) {
  ::inet_diag_req_v2 question{};
  question.sdiag_family = static_cast<std::uint8_t>(family);
  question.sdiag_protocol = static_cast<std::uint8_t>(protocol);
  question.idiag_states = ~0U;
  std::map<std::uint64_t, int> shut;
  ask<::inet_diag_msg>(make_socket({AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG}), question, About::all,
                       "UDP sockets",
                       [&](const ::inet_diag_msg& message, std::span<const std::byte> attributes) {
                         for_each_attribute(attributes, [&](const Attribute& attribute) {
                           const int how = attribute.byte();
                           if (attribute.type == INET_DIAG_SHUTDOWN && how != 0)
                             shut[message.idiag_inode] = how;
                         });
                       });
  return shut;
}

}  // namespace icecore::sys
