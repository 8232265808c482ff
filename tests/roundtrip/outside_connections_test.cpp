// SPDX-License-Identifier: Apache-2.0
//
// TCP connections with others that stay established (--tcp established): the peer, which is the
// test, notices nothing, whether the process runs on or is killed and restored, nor when icecore is
// killed in the middle (see also tests/sys/tcp_repair_test.cpp).
#include <catch2/catch.hpp>
#include <icecore/error.hpp>
#include <icecore/snapshot.hpp>

#include <optional>

#include "support/orphans.hpp"
#include "support/restored.hpp"
#include "support/run.hpp"
#include "support/stepper.hpp"
#include "support/target.hpp"
#include "support/tcp_peer.hpp"
#include "support/temporary_folder.hpp"

namespace test::outside_connections_test {

namespace fs = std::filesystem;
using icecore::TcpConnections;

struct Way {
  const char* host;
  int family;  ///< of the peer
};
constexpr Way kWays[] = {{"127.0.0.1", AF_INET}, {"::1", AF_INET6}, {"::ffff:127.0.0.1", AF_INET}};

/// A target and its peer.
struct Connected {
  explicit Connected(const Way& way = kWays[0])
      : listener(listen_at_loopback(way.family)),
        target("outside_connection", {way.host, std::to_string(name_of(listener).port())}),
        peer(listener) {}

  Descriptor listener;
  Target target;
  Peer peer;
};

template <class End>
std::size_t send_as_much_as_fits(End& end, std::size_t count) {
  return std::stoul(end.ask("send " + std::to_string(count)));
}

/// Both ways, at once.
template <class End>
void expect_conversation(End& end, Peer& peer) {
  peer.send(1000);
  CHECK(end.ask("receive 1000") == "ok");
  CHECK(end.ask("send 1000") == "1000");
  peer.receive(1000);
}

/// Options and scales; segments may grow with the window.
void expect_agreed(const std::string& now, const std::string& before) {
  const std::size_t segment = before.rfind(' ') + 1;
  CHECK(now.substr(0, segment) == before.substr(0, segment));
  CHECK(std::stoul(now.substr(segment)) >= std::stoul(before.substr(segment)));
}

#ifdef ICECORE_SANITIZED
constexpr std::size_t kStride = 7;  // everything is slower
#else
constexpr std::size_t kStride = 1;
#endif

void await_acknowledged(const Peer& peer) {
  const Deadline deadline{kPatience};
  while (!peer.all_acknowledged())
    if (deadline.passed()) throw std::runtime_error{"not acknowledged"};
}

TEST_CASE("an established connection goes on in a process that runs on") {
  const Way way = GENERATE(from_range(std::begin(kWays), std::end(kWays)));
  INFO(way.host);
  TemporaryFolder folder;
  Connected c{way};
  for (int round = 0; round < 3; ++round) {
    c.peer.send(5000);
    const std::size_t sent = send_as_much_as_fits(c.target, 8'000'000);
    icecore::snapshot(c.target.pid(), folder / "image",
                      {.fsync = false, .tcp = TcpConnections::established});
    CHECK(c.target.ask("reuse?") == "1");
    CHECK(c.target.ask("receive 5000") == "ok");
    c.peer.receive(sent);
    expect_conversation(c.target, c.peer);
  }
  CHECK(c.peer.hears_nothing());
}

TEST_CASE(
    "an established connection goes on in the restored process, with all that was under way") {
  const Way way = GENERATE(from_range(std::begin(kWays), std::end(kWays)));
  INFO(way.host);
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  Connected c{way};
  const QuietAddress quiet{peer_of(c.peer.socket())};
  std::optional<Restored> restored;
  const auto ask = [&](const std::string& question) {
    return restored ? restored->ask(question) : c.target.ask(question);
  };
  const std::string agreed = ask("agreed?");
  for (int round = 0; round < 3; ++round) {
    c.peer.send(30'000);
    await_acknowledged(c.peer);
    const std::size_t sent = std::stoul(ask("send 8000000"));
    icecore::snapshot(restored ? restored->pid() : c.target.pid(), image,
                      {.kill = true, .fsync = false, .tcp = TcpConnections::established});
    if (restored)
      restored->await_end();
    else
      c.target.process().await_end();
    c.peer.send(10'000);  // while nobody is there
    restored.emplace(image, icecore::RestoreOptions{.tcp = TcpConnections::established});
    expect_agreed(ask("agreed?"), agreed);
    CHECK(ask("reuse?") == "1");
    CHECK(ask("receive 40000") == "ok");
    c.peer.receive(sent);
    expect_conversation(*restored, c.peer);
  }
  CHECK(c.peer.hears_nothing());
  CHECK(ask("end") == "ok");
  CHECK(c.peer.receives_end());
}

TEST_CASE("a connection of which one direction has ended goes on") {
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  Connected c;
  const QuietAddress quiet{peer_of(c.peer.socket())};
  const bool by_peer = GENERATE(true, false);
  const auto unread = static_cast<std::size_t>(GENERATE(0, 3000));
  c.peer.send(unread);
  if (by_peer)
    c.peer.end();
  else
    CHECK(c.target.ask("end") == "ok");
  if (by_peer) await_acknowledged(c.peer);
  icecore::snapshot(c.target.pid(), image,
                    {.kill = true, .fsync = false, .tcp = TcpConnections::established});
  c.target.process().await_end();
  Restored restored{image, {.tcp = TcpConnections::established}};
  CHECK(restored.ask("receive " + std::to_string(unread)) == "ok");
  if (by_peer) {
    CHECK(restored.ask("next?") == "end");
    CHECK(restored.ask("send 2000") == "2000");
    c.peer.receive(2000);
    CHECK(restored.ask("end") == "ok");
    CHECK(c.peer.receives_end());
  } else {
    CHECK(c.peer.receives_end());
    c.peer.send(2000);
    CHECK(restored.ask("receive 2000") == "ok");
    CHECK(restored.ask("next?") == "nothing");
    c.peer.end();
    await_acknowledged(c.peer);
  }
}

/// Nothing reaches the peer as long as this lives.
class Deaf {
 public:
  explicit Deaf(const Descriptor& socket) : socket_(socket) {
    ::sock_filter nothing{BPF_RET | BPF_K, 0, 0, 0};
    const ::sock_fprog program{1, &nothing};
    must(::setsockopt(socket_.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program),
         "SO_ATTACH_FILTER");
  }
  Deaf(const Deaf&) = delete;
  Deaf& operator=(const Deaf&) = delete;
  ~Deaf() {
    const int unused = 0;
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused);
  }

 private:
  const Descriptor& socket_;
};

void await_state(Target& target, const std::string& wanted) {
  const Deadline deadline{kPatience};
  while (target.ask("state?") != wanted)
    if (deadline.passed()) throw std::runtime_error{"not in state " + wanted};
}

TEST_CASE("a connection that both have ended goes on until the peer has heard of it") {
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  Connected c;
  const QuietAddress quiet{peer_of(c.peer.socket())};
  const bool peer_first = GENERATE(true, false);
  std::optional<Deaf> deaf;
  if (peer_first) {
    c.peer.end();
    await_acknowledged(c.peer);
    deaf.emplace(c.peer.socket());
    CHECK(c.target.ask("end") == "ok");
    await_state(c.target, "9");  // TCP_LAST_ACK
  } else {
    deaf.emplace(c.peer.socket());
    CHECK(c.target.ask("end") == "ok");
    c.peer.end();
    await_state(c.target, "11");  // TCP_CLOSING
  }
  icecore::snapshot(c.target.pid(), image,
                    {.kill = true, .fsync = false, .tcp = TcpConnections::established});
  c.target.process().await_end();
  deaf.reset();
  Restored restored{image, {.tcp = TcpConnections::established}};
  CHECK(restored.ask("next?") == "end");
  CHECK(restored.ask("send 1") == "wrong: send: error " + std::to_string(EPIPE));
  CHECK(c.peer.receives_end());
}

/// False when it has been killed.
bool answers(Target& target) {
  try {
    return target.running();
  } catch (const std::exception&) {
    target.process().await_end();
    return false;
  }
}

TEST_CASE("an established connection goes on when icecore is killed at any step of a snapshot") {
  const bool kill = GENERATE(false, true);
  INFO((kill ? "--kill" : "runs on"));
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  const OrphanAdopter adopter;
  Connected c;
  Arguments command{ICECORE_TOOL,  "snapshot",  std::to_string(c.target.pid()),
                    "-o",          image,       "--tcp",
                    "established", "--no-fsync"};
  if (kill) command.emplace_back("--kill");
  const Descriptor nowhere{must(::open("/dev/null", O_RDWR | O_CLOEXEC), "/dev/null")};
  const Streams quiet{nowhere.get(), nowhere.get(), nowhere.get()};
  // Before and after they are not touched, and while pages are read they are as before.
  const std::size_t frozen = steps_until("snapshot: frozen", command, quiet);
  const std::size_t read = steps_until("snapshot: state read", command, quiet);
  const std::size_t written = steps_until("snapshot: written", command, quiet);
  bool finished = false;
  for (std::size_t step = frozen; !finished && (kill || step < read + 20);
       step += step > read + 20 && step + 20 < written ? 10 : kStride) {
    c.peer.send(300);  // which waits to be read
    await_acknowledged(c.peer);
    Stepper stepper{command, quiet};
    finished = !stepper.stop_before(step);
    INFO("before step " << step << ": " << stepper.last_calls());
    stepper.kill();
    adopter.await_only_child(c.target.pid());
    if (!answers(c.target)) break;
    CHECK(c.target.ask("reuse?") == "1");
    CHECK(c.target.ask("receive 300") == "ok");
    expect_conversation(c.target, c.peer);
    CHECK(c.peer.hears_nothing());
  }
  REQUIRE(c.target.alive() != kill);
  if (!kill) return;
  // It died of the last step, when its image was complete.
  Restored restored{image, {.tcp = TcpConnections::established}};
  CHECK(restored.ask("receive 300") == "ok");
  expect_conversation(restored, c.peer);
}

TEST_CASE("a connection is not restored without being asked for, nor twice") {
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  Connected c;
  const Outcome refused =
      icecore({"snapshot", std::to_string(c.target.pid()), "-o", image, "--no-fsync"});
  CHECK(refused.status == 1);
  CHECK_THAT(refused.err, Catch::Contains("--tcp established"));
  icecore::snapshot(c.target.pid(), image, {.fsync = false, .tcp = TcpConnections::established});
  const auto expect_refused = [&](const Arguments& options, const std::string& words) {
    Arguments command{"restore", image};
    command.insert(command.end(), options.begin(), options.end());
    const Outcome outcome = icecore(command);
    CHECK(outcome.status == 125);
    CHECK_THAT(outcome.err,
               Catch::Contains("TCP connection from 127.0.0.1 port") && Catch::Contains(words));
  };
  expect_refused({}, "--tcp established");
  expect_refused({"--tcp", "established"}, "in use");
  expect_conversation(c.target, c.peer);

  Restored reset{image, {.tcp = TcpConnections::close}};
  CHECK(reset.ask("next?") == "Connection reset by peer");
  expect_conversation(c.target, c.peer);
}

TEST_CASE("check says what a connection lacks here") {
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  Connected c{kWays[1]};  // ::1 is no address where the loopback device is down
  icecore::snapshot(c.target.pid(), image,
                    {.kill = true, .fsync = false, .tcp = TcpConnections::established});
  c.target.process().await_end();
  const auto check = [&](Arguments before) {
    for (const char* const word : {ICECORE_TOOL, "check", "--tcp", "established"})
      before.emplace_back(word);
    before.push_back(image);
    return run(before).out;
  };
  CHECK_THAT(check({"unshare", "--net"}), Catch::Contains("is no address of this machine"));
  CHECK_THAT(check({"setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"}),
             Catch::Contains("CAP_NET_ADMIN"));
}

}  // namespace test::outside_connections_test
