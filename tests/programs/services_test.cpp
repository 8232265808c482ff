// SPDX-License-Identifier: Apache-2.0
//
// Real servers that listen at a port, three rounds each.  Each is asked, before and after, for what
// only its memory knows.
#include <catch2/catch.hpp>
#include <icecore/error.hpp>
#include <icecore/snapshot.hpp>
#include <netinet/tcp.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <thread>

#include "support/local_port.hpp"
#include "support/restored.hpp"
#include "support/skip.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::services_test {

struct Service {
  std::string name;
  Arguments command;                      ///< "FOLDER" and "PORT" stand for the test's
  std::vector<std::string> prepare = {};  ///< requests, once
  std::string ask;                        ///< gives what only its memory knows
  std::string check;                      ///< gives an answer that holds `good`
  std::string good;
  std::string config = {};  ///< contents of FOLDER/config
};

std::string script(const std::string& name) {
  return std::string{ICECORE_SOURCE_DIR} + "/tests/programs/" + name;
}

const Service kServices[] = {
    {.name = "redis-server",
     .command = {"/usr/bin/redis-server", "--port", "PORT", "--bind", "127.0.0.1", "--save", "",
                 "--dir", "FOLDER", "--enable-debug-command", "yes", "--unixsocket",
                 "FOLDER/redis.sock"},
     .prepare = {"DEBUG POPULATE 100000\r\nQUIT\r\n",
                 "EVAL \"math.randomseed(redis.call('TIME')[2]) return redis.call('SET', 'secret', "
                 "math.random(1000000))\" 0\r\nQUIT\r\n"},
     .ask = "GET secret\r\nQUIT\r\n",
     .check = "DBSIZE\r\nGET key:99999\r\nQUIT\r\n",
     .good = ":100001\r\n$11\r\nvalue:99999"},
    {.name = "memcached",
     .command = {"/usr/bin/memcached", "-u", "root", "-l", "127.0.0.1", "-p", "PORT", "-t", "4"},
     .prepare = {"set kept 0 0 7\r\nin here\r\nquit\r\n"},
     .ask = "get kept\r\nquit\r\n",
     .check = "get kept\r\nquit\r\n",
     .good = "in here"},
    {.name = "nginx",
     .command = {"/usr/sbin/nginx", "-p", "FOLDER", "-c", "FOLDER/config"},
     .ask = http_get("/"),
     .check = http_get("/"),
     .good = "as configured",
     .config = "master_process off; daemon off; error_log stderr; pid nginx.pid;\n"
               "events { worker_connections 64; }\n"
               "http { access_log off; server { listen 127.0.0.1:PORT; return 200 'as configured'; "
               "} client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; "
               "uwsgi_temp_path uwsgi; scgi_temp_path scgi; }\n"},
    {.name = "haproxy",
     .command = {"/usr/sbin/haproxy", "-db", "-f", "FOLDER/config"},
     .ask = http_get("/"),
     .check = http_get("/"),
     .good = "as configured",
     .config = "global\n nbthread 4\n stats socket FOLDER/stats level admin\n"
               " set-var proc.secret rand(1000000000)\n"
               "defaults\n mode http\n timeout client 5s\n timeout server 5s\n"
               " timeout connect 5s\n"
               "frontend web\n bind 127.0.0.1:PORT\n http-request return status 200 "
               "content-type text/plain lf-string \"as configured %[var(proc.secret)]\"\n"},
    {.name = "caddy",  // in Go
     .command = {"/usr/bin/caddy", "run", "--adapter", "caddyfile", "--config", "FOLDER/config"},
     .ask = http_get("/"),
     .check = http_get("/"),
     .good = "as configured",
     .config = "{\n admin off\n auto_https off\n}\n"
               "http://:PORT {\n bind 127.0.0.1\n respond \"as configured\"\n}\n"},
    {.name = "node",
     .command = {"/usr/bin/node", script("http_server.js"), "PORT"},
     .ask = http_get("/secret"),
     .check = http_get("/"),
     .good = "ok"},
    {.name = "java",
     .command = {"/usr/bin/java", "-XX:+UseG1GC", "-Xmx256m", script("Answers.java"), "PORT"},
     .ask = http_get("/secret"),
     .check = http_get("/"),
     .good = "ok"},
};

class Running {
 public:
  explicit Running(const Service& service) : service_(service), port_(free_port()) {
    if (::access(service.command[0].c_str(), X_OK) != 0)
      throw NotHere{service.command[0] + " is not installed"};
    std::ofstream{folder_ / "config"} << filled_in(service.config);
    Arguments command;
    for (const std::string& word : service.command) command.push_back(filled_in(word));
    const int nothing = must(::open("/dev/null", O_RDWR | O_CLOEXEC), "/dev/null");
    process_.emplace(Process::start(command, {nothing, nothing, nothing}));
    const Deadline deadline{kPatience};
    while (!talk(port_, service.check)) {
      if (deadline.passed() || process_->ended()) throw std::runtime_error{"it does not listen"};
      std::this_thread::yield();
    }
    for (const std::string& request : service.prepare) talk(port_, request);
  }

  Process& process() { return *process_; }
  std::string image() const { return folder_ / "image"; }
  std::string secret() const {
    return http_body(talk(port_, service_.ask).value_or("nobody listens"));
  }
  std::string check() const { return talk(port_, service_.check).value_or("nobody listens"); }

  int port() const { return port_; }

  /// Until its last connection is closed on its side too.
  void snapshot_and_kill(pid_t pid,
                         icecore::TcpConnections tcp = icecore::TcpConnections::refuse) const {
    const Deadline deadline{kPatience};
    for (;;) {
      try {
        icecore::snapshot(pid, image(), {.kill = true, .fsync = false, .tcp = tcp});
        return;
      } catch (const icecore::Error& error) {
        if (deadline.passed() ||
            std::string{error.what()}.find("TCP connection") == std::string::npos)
          throw;
      }
    }
  }

 private:
  std::string filled_in(std::string text) const {
    const auto replace = [&](const std::string& what, const std::string& with) {
      for (std::size_t at; (at = text.find(what)) != std::string::npos;)
        text.replace(at, what.size(), with);
    };
    replace("FOLDER", folder_.path());
    replace("PORT", std::to_string(port_));
    return text;
  }

  const Service& service_;
  TemporaryFolder folder_;
  int port_;
  std::optional<Process> process_;
};

void goes_three_rounds(const Service& service) {
  Running running{service};
  const std::string secret = running.secret();
  INFO(secret);
  CHECK_THAT(running.check(), Catch::Contains(service.good));
  running.snapshot_and_kill(running.process().pid());
  running.process().await_end();
  for (int round = 1; round <= 3; ++round) {
    INFO("round " << round);
    Restored restored{running.image()};
    REQUIRE(running.secret() == secret);
    CHECK_THAT(running.check(), Catch::Contains(service.good));
    if (round == 3) break;
    running.snapshot_and_kill(restored.pid());
    restored.await_end();
  }
}

/// A client that stays connected.
class Client {
 public:
  explicit Client(int port) : socket_(make_tcp_socket()) {
    const ::sockaddr_in address = local_address(port);
    must(::connect(socket_.get(), reinterpret_cast<const ::sockaddr*>(&address), sizeof address),
         "connect");
  }

  /// What comes, up to and with `end`.
  std::string ask(const std::string& request, const std::string& end) const {
    must(::send(socket_.get(), request.data(), request.size(), MSG_NOSIGNAL), "send");
    std::string answer;
    const Deadline deadline{kPatience};
    for (char bytes[4096]; !answer.ends_with(end);) {
      ::pollfd wait{socket_.get(), POLLIN, 0};
      if (::poll(&wait, 1, deadline.left_ms()) != 1) throw std::runtime_error{"no end: " + answer};
      const auto size = must(::recv(socket_.get(), bytes, sizeof bytes, 0), "recv");
      if (size == 0) throw std::runtime_error{"the connection ends"};
      answer.append(bytes, static_cast<std::size_t>(size));
    }
    acknowledge();
    return answer;
  }

 private:
  /// At once: 40 ms later the server may have been killed, and the kernel would reset us.
  void acknowledge() const {
    const int on = 1;
    must(::setsockopt(socket_.get(), IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on), "TCP_QUICKACK");
  }

  Descriptor socket_;
};

struct Talk {
  const char* service;
  std::string begin;  ///< once
  std::string ask;
  std::string end;  ///< of every answer
  std::string good;
};

TEST_CASE("a client stays connected to a server that is killed and restored") {
  const std::string get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  const Talk talk = GENERATE_COPY(values<Talk>(
      {{"redis-server", "CLIENT SETNAME me\r\n", "CLIENT GETNAME\r\n", "\r\n", "$2\r\nme"},
       {"nginx", get, get, "as configured", "HTTP/1.1 200"}}));
  const auto service = std::ranges::find(kServices, talk.service, &Service::name);
  constexpr auto kEstablished = icecore::TcpConnections::established;
  try {
    Running running{*service};
    const Client client{running.port()};
    client.ask(talk.begin, talk.end);
    running.snapshot_and_kill(running.process().pid(), kEstablished);
    running.process().await_end();
    for (int round = 1; round <= 3; ++round) {
      Restored restored{running.image(), {.tcp = kEstablished}};
      CHECK_THAT(client.ask(talk.ask, talk.end), Catch::Contains(talk.good));
      CHECK_THAT(running.check(), Catch::Contains(service->good));
      if (round == 3) break;
      running.snapshot_and_kill(restored.pid(), kEstablished);
      restored.await_end();
    }
  } catch (const NotHere& reason) {
    skip(reason.what());
  }
}

/// One test case each, so that each can be skipped by itself.
class ThreeRounds : public Catch::ITestInvoker {
 public:
  explicit ThreeRounds(const Service& service) : service_(service) {}

  void invoke() const override {
    try {
      goes_three_rounds(service_);
    } catch (const NotHere& reason) {
      skip(reason.what());
    }
  }

 private:
  const Service& service_;
};

const bool registered = [] {
  for (const Service& service : kServices) {
    const std::string name = "programs/" + service.name;
    Catch::getMutableRegistryHub().registerTest(
        Catch::makeTestCase(new ThreeRounds{service}, "", {name, "[programs]"},
                            Catch::SourceLineInfo{__FILE__, __LINE__}));
  }
  return true;
}();

}  // namespace test::services_test
