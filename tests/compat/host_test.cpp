// SPDX-License-Identifier: Apache-2.0
#include "icecore/host.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

#include "compat/baseline.hpp"
#include "compat/platform.hpp"
#include "icecore/error.hpp"

namespace icecore::host_test {

Host machine(std::vector<std::string> features, const std::string& vdso = "00") {
  Host host;
  host.cpu_features = std::move(features);
  host.xsave_components = 7;
  host.xsave_offsets = {0, 0, 576};
  host.vdso_digest = vdso;
  host.worker_type = worker_type_of(host);
  return host;
}

std::vector<std::vector<std::size_t>> members(const std::vector<FleetGroup>& groups) {
  std::vector<std::vector<std::size_t>> all;
  for (const FleetGroup& group : groups) all.push_back(group.members);
  return all;
}

TEST_CASE("a machine is read as it was written") {
  const Host host = this_host();
  const Host read = read_host(to_json(host));
  CHECK(read.worker_type == host.worker_type);
  CHECK(read.cpu_features == host.cpu_features);
  CHECK(read.vdso_parts == host.vdso_parts);
  CHECK(read.vdso_functions == host.vdso_functions);
  CHECK(std::ranges::count(host.vdso_functions, "__vdso_clock_gettime") == 1);
  CHECK(!host.cpu_features.empty());
  CHECK(std::ranges::count(host.cpu_features, "erms") == 0);
}

TEST_CASE("a machine that says what it is not is refused") {
  std::string text = to_json(this_host());
  text.replace(text.find("\"vdso_digest\":\"") + 15, 4, "beef");
  CHECK_THROWS_AS(read_host(text), Error);
  CHECK_THROWS_AS(read_host("{}"), Error);
  CHECK_THROWS_AS(read_host("[]"), Error);
}

TEST_CASE("a fleet needs a snapshot for each machine that no other serves") {
  using Groups = std::vector<std::vector<std::size_t>>;
  const Host small = machine({"avx"}), large = machine({"avx", "avx2"});
  const Host other = machine({"xop"}), newer = machine({"avx"}, "01");
  CHECK(members(group_fleet({small, large})) == Groups{{0, 1}});
  CHECK(members(group_fleet({large, small, large})) == Groups{{0, 1, 2}});
  CHECK(group_fleet({large, small, large})[0].snapshot_on == 1);
  CHECK(members(group_fleet({large, large})) == Groups{{0, 1}});
  CHECK(members(group_fleet({small, other, newer})) == Groups{{0}, {1}, {2}});
  Host old_kernel = small, new_kernel = newer, odd_kernel = newer;
  old_kernel.vdso_functions = {"__vdso_clock_gettime", "__vdso_getcpu"};
  new_kernel.vdso_functions = {"__vdso_clock_gettime"};  // a system call does for the other
  odd_kernel.vdso_functions = {"__vdso_clock_gettime", "__vdso_riddle"};
  CHECK(members(group_fleet({old_kernel, new_kernel})) == Groups{{0, 1}});
  CHECK(members(group_fleet({odd_kernel, old_kernel})) == Groups{{0, 1}});
  CHECK(group_fleet({odd_kernel, old_kernel})[0].snapshot_on == 1);
  CHECK(group_fleet({}).empty());
}

TEST_CASE("a baseline leaves out the vector extensions beyond it and nothing else") {
  const std::vector<std::string> all{"aes",        "avx",    "avx2", "avx512f",
                                     "avx512vbmi", "sse4_2", "vaes"};
  using Names = std::vector<std::string>;
  CHECK(features_within("", all) == all);
  CHECK(features_within("x86-64-v4", all) == Names{"aes", "avx", "avx2", "avx512f", "sse4_2"});
  CHECK(features_within("x86-64-v3", all) == Names{"aes", "avx", "avx2", "sse4_2"});
  CHECK(features_within("x86-64-v2", all) == Names{"aes", "sse4_2"});
  CHECK_THROWS_AS(check_baseline("x86-64-v9"), Error);
  CHECK_THROWS_AS(baseline_environment("v3"), Error);
}

}  // namespace icecore::host_test
