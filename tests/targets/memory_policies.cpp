// SPDX-License-Identifier: Apache-2.0
//
// State: mappings, parts of mappings and shared memory with a memory policy of their own (mbind),
// as far as this kernel knows the policy; some that had one and have none any more.
#include "memory.hpp"

using namespace target;

static constexpr int kDefault = 0, kPreferred = 1, kBind = 2, kInterleave = 3, kLocal = 4,
                     kPreferredMany = 5, kWeightedInterleave = 6;
static constexpr int kStaticNodes = 1 << 15, kRelativeNodes = 1 << 14, kBalancing = 1 << 13;
static constexpr unsigned long kOfAddress = 2;

struct Policy {
  int mode = -1;
  unsigned long nodes[16] = {};
  bool operator==(const Policy& other) const {
    return mode == other.mode && std::memcmp(nodes, other.nodes, sizeof nodes) == 0;
  }
};

static Policy policy_at(const char* address) {
  Policy policy;
  must(::syscall(SYS_get_mempolicy, &policy.mode, policy.nodes, 1024, address, kOfAddress),
       "get_mempolicy");
  return policy;
}

static bool try_bind(char* start, std::size_t pages, int mode) {
  const unsigned long first_node = 1;
  const bool without_nodes = mode == kDefault || mode == kLocal;
  const long result = raw(SYS_mbind, start, pages * kPageSize, mode,
                          without_nodes ? nullptr : &first_node, without_nodes ? 0 : 64, 0);
  if (result != -EINVAL) require(result == 0, "mbind " + std::to_string(mode));
  return result == 0;
}

/// One that every kernel has.
static void bind(char* start, std::size_t pages, int mode) {
  require(try_bind(start, pages, mode), "mbind " + std::to_string(mode));
}

static Pages map_memfd(int file, std::size_t count, off_t first_page = 0) {
  return map(count, MAP_SHARED, PROT_READ | PROT_WRITE, file,
             first_page * static_cast<off_t>(kPageSize));
}

int main() {
  const std::uint64_t seed = random_number();
  std::vector<Pages> all;
  std::vector<const char*> looked_at;
  const auto keep = [&](const Pages& pages) {
    for (std::size_t i = 0; i < pages.count; i += 2) fill(pages, i, seed);
    for (std::size_t i = 0; i < pages.count; ++i) looked_at.push_back(pages.page(i));
    all.push_back(pages);
  };

  for (const int mode : {kPreferred, kBind, kInterleave, kLocal, kPreferredMany,
                         kWeightedInterleave, kBind | kStaticNodes, kInterleave | kStaticNodes,
                         kBind | kRelativeNodes, kPreferred | kRelativeNodes, kBind | kBalancing}) {
    const Pages whole = map(4, MAP_PRIVATE | MAP_ANONYMOUS);
    try_bind(whole.start, 4, mode);
    keep(whole);
    const Pages part = map(8, MAP_PRIVATE | MAP_ANONYMOUS);
    if (try_bind(part.page(2), 3, mode)) try_bind(part.page(6), 1, kBind);
    keep(part);
  }
  const Pages untouchable = map(4, MAP_PRIVATE | MAP_ANONYMOUS);
  bind(untouchable.page(1), 2, kInterleave);
  must(::mprotect(untouchable.start, 4 * kPageSize, PROT_NONE), "mprotect");
  for (std::size_t i = 0; i < 4; ++i) looked_at.push_back(untouchable.page(i));
  const Pages had_one = map(6, MAP_PRIVATE | MAP_ANONYMOUS);
  bind(had_one.start, 6, kBind);
  bind(had_one.page(2), 2, kDefault);
  keep(had_one);

  const Pages shared = map(8, MAP_SHARED | MAP_ANONYMOUS);
  bind(shared.page(3), 2, kInterleave);
  keep(shared);
  // A second view, which nothing splits where the policy begins and ends.
  const int file = static_cast<int>(must(::memfd_create("policies", MFD_CLOEXEC), "memfd_create"));
  must(::ftruncate(file, 8 * kPageSize), "ftruncate");
  const Pages first = map_memfd(file, 8), second = map_memfd(file, 8);
  bind(first.page(2), 3, kPreferred);
  keep(first);
  for (std::size_t i = 0; i < 8; ++i) looked_at.push_back(second.page(i));

  std::vector<Policy> before;
  for (const char* address : looked_at) before.push_back(policy_at(address));
  require(policy_at(second.page(2)).mode == kPreferred && policy_at(second.page(1)).mode == 0,
          "a policy of shared memory is not that of all of its views");
  return serve([&] {
    for (std::size_t i = 0; i < looked_at.size(); ++i)
      require(policy_at(looked_at[i]) == before[i],
              "page " + std::to_string(i) + ": another policy");
    for (const Pages& pages : all)
      for (std::size_t i = 0; i < pages.count; i += 2) expect(pages, i, seed);
  });
}
