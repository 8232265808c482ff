// SPDX-License-Identifier: Apache-2.0
//
// State: a program as a serverless runtime starts it.  Its arguments are done in order before it
// answers: "notify" (says that it is ready, as of sd_notify), "file PATH" (makes a file), "write
// PATH TEXT", "packets" (keeps a socket that cannot be snapshotted), "exit N", "crash".
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>

#include "target.hpp"

using namespace target;

static void notify(const std::string& message) {
  const char* const name = ::getenv("NOTIFY_SOCKET");
  require(name != nullptr, "no NOTIFY_SOCKET");
  ::sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, name);
  if (*name == '@') address.sun_path[0] = '\0';
  const int socket =
      static_cast<int>(must(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket"));
  const auto size = static_cast<::socklen_t>(offsetof(::sockaddr_un, sun_path) + std::strlen(name));
  must(::sendto(socket, message.data(), message.size(), 0,
                reinterpret_cast<const ::sockaddr*>(&address), size),
       "sendto");
  ::close(socket);
}

static void write_file(const std::string& path, const std::string& text) {
  const int file =
      static_cast<int>(must(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), path));
  must(::write(file, text.data(), text.size()), path);
  ::close(file);
}

int main(int, char** arguments) {
  const std::string secret = std::to_string(random_number());  // before anybody can take a snapshot
  for (++arguments; *arguments != nullptr; ++arguments) {
    const std::string what = *arguments;
    if (what == "notify") notify("STATUS=loaded\nREADY=1\n");
    if (what == "file") write_file(*++arguments, "");
    if (what == "write") {
      write_file(arguments[1], arguments[2]);
      arguments += 2;
    }
    if (what == "packets") must(::socket(AF_PACKET, SOCK_RAW, 0), "packet socket");
    if (what == "exit") std::_Exit(std::atoi(*++arguments));
    if (what == "crash") ::raise(SIGSEGV);
  }
  return serve([] {}, {{"notify",
                        [](auto&) {
                          notify("READY=1");
                          return "done";
                        }},
                       {"secret?", [&](auto&) { return secret; }},
                       {"pid?", [](auto&) { return std::to_string(::getpid()); }},
                       {"variable?", [](const std::string& name) {
                          const char* const value = ::getenv(name.c_str());
                          return std::string{value != nullptr ? value : "not set"};
                        }}});
}
