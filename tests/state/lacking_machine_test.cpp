// SPDX-License-Identifier: Apache-2.0
//
// Images of machines with more than this one has: they are refused before anything starts.
#include <catch2/catch.hpp>
#include <icecore/restore.hpp>
#include <netinet/in.h>

#include "state/descriptors/sockets.hpp"
#include "state/memory_policies.hpp"

namespace icecore::test::lacking_machine_test {

constexpr std::uint32_t kBind = 2, kLocal = 4, kUnknown = 99, kStaticNodes = 1 << 15;
constexpr std::uint64_t kFirstNode = 1;
constexpr std::uint64_t kLastNodeOfWord = std::uint64_t{1} << 63;

std::vector<std::string> refusals_of(std::uint32_t mode, const std::vector<std::uint64_t>& nodes,
                                     bool of_thread) {
  state::ProcessT process;
  process.address_space = std::make_unique<state::AddressSpaceT>();
  auto thread = std::make_unique<state::ThreadT>();
  thread->tid = 4711;
  auto policy = std::make_unique<state::MemoryPolicyT>();
  policy->start = 0x10000;
  policy->end = 0x20000;
  if (of_thread) {
    thread->memory_policy = static_cast<int>(mode);
    thread->memory_nodes = nodes;
  } else {
    policy->mode = mode;
    policy->nodes = nodes;
  }
  process.threads.push_back(std::move(thread));
  if (!of_thread) process.address_space->policies.push_back(std::move(policy));
  Refusals refusals;
  refuse_lacking_nodes(process, refusals);
  return refusals.reasons();
}

TEST_CASE("a memory policy with nodes that are not here is refused by name") {
  const bool of_thread = GENERATE(false, true);
  const std::string name = of_thread ? "thread 4711: memory policy" : "memory 0x10000-0x20000";
  CHECK(refusals_of(kBind, {kFirstNode}, of_thread).empty());
  CHECK(refusals_of(kLocal, {}, of_thread).empty());
  using Nodes = std::vector<std::uint64_t>;
  for (const auto& [mode, nodes] :
       {std::pair{kBind, Nodes{kFirstNode | kLastNodeOfWord}},
        std::pair{kBind, Nodes{kLastNodeOfWord}}, std::pair{kBind, Nodes{0, kFirstNode}},
        std::pair{kBind | kStaticNodes, Nodes{kLastNodeOfWord}}, std::pair{kUnknown, Nodes{}}}) {
    INFO("mode " << mode);
    const auto refusals = refusals_of(mode, nodes, of_thread);
    REQUIRE(refusals.size() == 1);
    CHECK_THAT(refusals[0], Catch::Contains(name));
  }
}

TEST_CASE("a multicast group of an interface that is not here is refused by name") {
  state::SocketObjectT socket;
  socket.family = AF_INET;
  socket.type = SOCK_DGRAM;
  socket.protocol = IPPROTO_UDP;
  socket.local.resize(sizeof(::sockaddr_in));
  socket.memberships.push_back(std::make_unique<state::MembershipT>());
  socket.memberships[0]->group.resize(sizeof(::sockaddr_in));
  for (const auto& [interface, is_here] : {std::pair{"lo", true}, std::pair{"not_here", false}}) {
    socket.memberships[0]->interface = interface;
    Refusals refusals;
    check_inet_socket(socket, {}, "descriptor 3", refusals);
    CHECK(refusals.empty() == is_here);
    if (!is_here)
      CHECK_THAT(refusals.reasons().at(0), Catch::Contains("descriptor 3: UDP socket") &&
                                               Catch::Contains("interface not_here"));
  }
}

}  // namespace icecore::test::lacking_machine_test
