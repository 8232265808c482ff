// SPDX-License-Identifier: Apache-2.0
//
// icecore fleet: how many snapshots a set of machines needs, and of which machine for which.
#include <fmt/format.h>

#include <string>
#include <vector>

#include "command.hpp"
#include "host_file.hpp"
#include "json/json.hpp"

namespace icecore::tool {
namespace {

class Fleet final : public Invocation {
 public:
  explicit Fleet(CLI::App& app) {
    app.add_option("HOST.json", files_, "Machines, as `icecore host` describes them")
        ->option_text(" ")
        ->required();
    add_json_option(app);
  }

  int run() override {
    std::vector<Host> hosts;
    for (const std::string& file : files_) hosts.push_back(read_host_file(file));
    const std::vector<FleetGroup> groups = group_fleet(hosts);
    if (json)
      print_json(groups);
    else
      print(groups, hosts);
    return 0;
  }

 private:
  void print(const std::vector<FleetGroup>& groups, const std::vector<Host>& hosts) const {
    fmt::print("{} snapshot{} for {} machines\n", groups.size(), groups.size() == 1 ? "" : "s",
               hosts.size());
    for (const FleetGroup& group : groups) {
      const Host& host = hosts[group.snapshot_on];
      fmt::print("taken on {} ({}, {}, Linux {}):\n", files_[group.snapshot_on], host.name,
                 host.cpu_model, host.kernel_release);
      for (const std::size_t member : group.members) fmt::print("  {}\n", files_[member]);
    }
  }

  void print_json(const std::vector<FleetGroup>& groups) const {
    JsonObject object;
    object.add("machines", files_.size())
        .add("snapshots", groups.size())
        .add("groups", groups, [this](const FleetGroup& group) {
          std::vector<std::string> members;
          for (const std::size_t member : group.members) members.push_back(files_[member]);
          JsonObject described;
          described.add("snapshot_on", files_[group.snapshot_on]).add("members", members);
          return described;
        });
    fmt::print(json_stream, "{}\n", object.text());
  }

  std::vector<std::string> files_;
};

}  // namespace

const Command kFleet{
    .name = "fleet",
    .summary = "Say how many snapshots a set of machines needs, and for which",
    .failure_status = 1,
    .declare = declare<Fleet>,
};

}  // namespace icecore::tool
