// SPDX-License-Identifier: Apache-2.0
//
// State: a program as a serverless runtime starts it.  Its arguments are done in order before it
// answers: "notify" (says that it is ready, as of sd_notify), "file PATH" (makes a file), "write
// PATH TEXT", "listen PORT" (on 127.0.0.1), "memory N" (keeps N MiB of random numbers), "packets"
// (keeps a socket that cannot be snapshotted), "exit N", "crash".
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
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

static void listen_on(int port) {
  ::sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  const int socket = static_cast<int>(must(::socket(AF_INET, SOCK_STREAM, 0), "socket"));
  const int yes = 1;
  must(::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes), "SO_REUSEADDR");
  must(::bind(socket, reinterpret_cast<const ::sockaddr*>(&address), sizeof address), "bind");
  must(::listen(socket, 8), "listen");
}

/// What differs at this invocation, with "|" for each NUL.
static std::string invocation() {
  const char* const path = ::getenv("ICECORE_INVOCATION");
  if (path == nullptr) return "none";
  std::string text = read_file(path);
  std::ranges::replace(text, '\0', '|');
  return text;
}

static std::vector<std::uint64_t> memory;
static bool memory_is_whole(std::uint64_t seed) {
  for (std::size_t i = 0; i < memory.size(); ++i)
    if (memory[i] != pattern(seed, i)) return false;
  return true;
}

int main(int, char** arguments) {
  const std::uint64_t seed = random_number();  // before anybody can take a snapshot
  const std::string secret = std::to_string(seed);
  int asked = 0;
  for (++arguments; *arguments != nullptr; ++arguments) {
    const std::string what = *arguments;
    if (what == "notify") notify("STATUS=loaded\nREADY=1\n");
    if (what == "file") write_file(*++arguments, "");
    if (what == "write") {
      write_file(arguments[1], arguments[2]);
      arguments += 2;
    }
    if (what == "listen") listen_on(std::atoi(*++arguments));
    if (what == "memory") {
      memory.resize(std::strtoul(*++arguments, nullptr, 10) * (1 << 20) / sizeof memory[0]);
      for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = pattern(seed, i);
    }
    if (what == "packets") must(::socket(AF_PACKET, SOCK_RAW, 0), "packet socket");
    if (what == "exit") std::_Exit(std::atoi(*++arguments));
    if (what == "crash") ::raise(SIGSEGV);
  }
  return serve([&] { require(memory_is_whole(seed), "memory has changed"); },
               {{"notify",
                 [](auto&) {
                   notify("READY=1");
                   return "done";
                 }},
                {"secret?", [&](auto&) { return secret; }},
                {"/secret", [&](auto&) { return secret; }},  // a path, as of HTTP
                {"/count", [&](auto&) { return std::to_string(++asked); }},
                {"/crash", [](auto&) -> std::string { std::abort(); }},
                {"invocation?", [](auto&) { return invocation(); }},
                {"pid?", [](auto&) { return std::to_string(::getpid()); }},
                {"variable?", [](const std::string& name) {
                   const char* const value = ::getenv(name.c_str());
                   return std::string{value != nullptr ? value : "not set"};
                 }}});
}
