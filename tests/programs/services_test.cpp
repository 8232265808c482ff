// SPDX-License-Identifier: Apache-2.0
//
// Real servers that listen at a port, three rounds each.  Each is asked, before and after, for what
// only its memory knows.
#include <catch2/catch.hpp>
#include <icecore/error.hpp>
#include <icecore/snapshot.hpp>

#include <fstream>
#include <optional>
#include <thread>

#include "support/local_port.hpp"
#include "support/restored.hpp"
#include "support/skip.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test {
namespace {

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

/// Without the headers of HTTP, which have the time in them.
std::string body(const std::string& answer) {
  const std::size_t end = answer.find("\r\n\r\n");
  return answer.starts_with("HTTP/") && end != std::string::npos ? answer.substr(end) : answer;
}

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
  std::string secret() const { return body(talk(port_, service_.ask).value_or("nobody listens")); }
  std::string check() const { return talk(port_, service_.check).value_or("nobody listens"); }

  /// Until its last connection is closed on its side too.
  void snapshot_and_kill(pid_t pid) const {
    const Deadline deadline{kPatience};
    for (;;) {
      try {
        icecore::snapshot(pid, image(), {.kill = true, .fsync = false});
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

}  // namespace
}  // namespace test
