// SPDX-License-Identifier: Apache-2.0
//
// Machines: what one offers, and which can share a snapshot.
#include "icecore/host.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "compat/platform.hpp"
#include "icecore/error.hpp"
#include "icecore/version.h"
#include "image/digest.hpp"
#include "json/json.hpp"
#include "json/json_value.hpp"
#include "sys/machine.hpp"

namespace icecore {
namespace {

/// What a description says, in its order.
template <class HostLike, class Visit>
void each_field(HostLike& host, const Visit& visit) {
  visit("icecore_version", host.icecore_version);
  visit("name", host.name);
  visit("worker_type", host.worker_type);
  visit("kernel_release", host.kernel_release);
  visit("cpu_model", host.cpu_model);
  visit("gpu", host.gpu);
  visit("gpu_driver", host.gpu_driver);
  visit("page_size_bytes", host.page_size_bytes);
  visit("cpu_features", host.cpu_features);
  visit("xsave_size_bytes", host.xsave_size_bytes);
  visit("xsave_components", host.xsave_components);
  visit("xsave_offsets", host.xsave_offsets);
  visit("vdso_parts", host.vdso_parts);
  visit("vdso_digest", host.vdso_digest);
  visit("vdso_functions", host.vdso_functions);
}

void read(const JsonValue& value, std::string& text) { text = value.text(); }
void read(const JsonValue& value, std::uint64_t& number) {
  if (value.number() < 0) throw Error{Errc::invalid_argument, "a number below zero"};
  number = static_cast<std::uint64_t>(value.number());
}
template <class Element>
void read(const JsonValue& value, std::vector<Element>& all) {
  for (const JsonValue& each : value.list()) read(each, all.emplace_back());
}

Host parse(const JsonValue& object) {
  Host host;
  each_field(host, [&](const char* name, auto& value) {
    try {
      read(object[name], value);
    } catch (const Error& error) {
      throw Error{error.code(), fmt::format("{}: {}", name, error.what())};
    }
  });
  if (host.worker_type != worker_type_of(host))
    throw Error{Errc::invalid_argument, "its worker_type is not that of what it says"};
  if (!std::ranges::is_sorted(host.cpu_features))
    throw Error{Errc::invalid_argument, "its cpu_features are not sorted"};
  return host;
}

/// Whether a snapshot taken on `from` can be restored on `to`, whatever the program uses.
bool fits(const Host& from, const Host& to) {
  if (from.worker_type == to.worker_type) return true;
  const auto same_place = [&](std::size_t i) {
    if ((from.xsave_components >> i & 1) == 0) return true;
    const auto offset = [&](const Host& host) {
      return i < host.xsave_offsets.size() ? host.xsave_offsets[i] : 0;
    };
    return (to.xsave_components >> i & 1) != 0 && offset(from) == offset(to);
  };
  for (std::size_t i = 0; i < 64; ++i)
    if (!same_place(i)) return false;
  return std::ranges::includes(to.cpu_features, from.cpu_features) && can_lead_vdso(from, to) &&
         from.page_size_bytes == to.page_size_bytes && from.gpu == to.gpu &&
         from.gpu_driver == to.gpu_driver;
}

}  // namespace

std::string worker_type_of(const Host& host) {
  const std::string text = fmt::format(
      "{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n", host.gpu, host.gpu_driver, host.page_size_bytes,
      fmt::join(host.cpu_features, " "), host.xsave_size_bytes, host.xsave_components,
      fmt::join(host.xsave_offsets, " "), fmt::join(host.vdso_parts, " "), host.vdso_digest);
  return fmt::format("{:016x}", digest64(std::as_bytes(std::span{text})));
}

Host this_host() {
  Host host = platform_here();
  const sys::Gpu gpu = sys::find_gpu();
  host.icecore_version = ICECORE_VERSION;
  host.name = sys::machine_name();
  host.cpu_model = sys::cpu_model();
  host.gpu = gpu.model;
  host.gpu_driver = gpu.driver;
  host.page_size_bytes = sys::page_size_bytes();
  host.worker_type = worker_type_of(host);
  return host;
}

std::string to_json(const Host& host) {
  JsonObject object;
  each_field(host, [&](const char* name, const auto& value) { object.add(name, value); });
  return object.text();
}

Host read_host(std::string_view json) {
  try {
    return parse(JsonValue::parse(json));
  } catch (const Error& error) {
    throw Error{
        Errc::invalid_argument,
        fmt::format(
            "is not a description of a host: {}: write one on that machine with `icecore host`",
            error.what())};
  }
}

// "A snapshot from there fits here" is transitive.  So the machines that no other serves, but for
// those that are served in return, are needed; and those are enough.
std::vector<FleetGroup> group_fleet(const std::vector<Host>& hosts) {
  std::vector<FleetGroup> groups;
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    const auto better = [&](std::size_t j) {
      return fits(hosts[j], hosts[i]) && (j < i || !fits(hosts[i], hosts[j]));
    };
    bool needed = true;
    for (std::size_t j = 0; j < hosts.size() && needed; ++j) needed = j == i || !better(j);
    if (needed) groups.push_back({.snapshot_on = i, .members = {}});
  }
  for (std::size_t i = 0; i < hosts.size(); ++i)
    std::ranges::find_if(groups, [&](const FleetGroup& group) {
      return fits(hosts[group.snapshot_on], hosts[i]);
    })->members.push_back(i);
  return groups;
}

}  // namespace icecore
