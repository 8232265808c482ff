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

std::uint64_t unsigned_number(const JsonValue& value) {
  const std::int64_t number = value.number();
  if (number < 0) throw Error{Errc::invalid_argument, "a number below zero"};
  return static_cast<std::uint64_t>(number);
}

Host parse(const JsonValue& object) {
  Host host;
  host.icecore_version = object["icecore_version"].text();
  host.name = object["name"].text();
  host.kernel_release = object["kernel_release"].text();
  host.cpu_model = object["cpu_model"].text();
  host.gpu = object["gpu"].text();
  host.gpu_driver = object["gpu_driver"].text();
  host.page_size_bytes = unsigned_number(object["page_size_bytes"]);
  host.cpu_features = object["cpu_features"].texts();
  host.xsave_size_bytes = unsigned_number(object["xsave_size_bytes"]);
  host.xsave_components = unsigned_number(object["xsave_components"]);
  for (const JsonValue& offset : object["xsave_offsets"].list())
    host.xsave_offsets.push_back(unsigned_number(offset));
  host.vdso_parts = object["vdso_parts"].texts();
  host.vdso_digest = object["vdso_digest"].text();
  host.vdso_functions = object["vdso_functions"].texts();
  host.worker_type = worker_type_of(host);
  if (host.worker_type != object["worker_type"].text())
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
  object.add("icecore_version", host.icecore_version)
      .add("name", host.name)
      .add("worker_type", host.worker_type)
      .add("kernel_release", host.kernel_release)
      .add("cpu_model", host.cpu_model)
      .add("gpu", host.gpu)
      .add("gpu_driver", host.gpu_driver)
      .add("page_size_bytes", host.page_size_bytes)
      .add("cpu_features", host.cpu_features)
      .add("xsave_size_bytes", host.xsave_size_bytes)
      .add("xsave_components", host.xsave_components)
      .add("xsave_offsets", host.xsave_offsets)
      .add("vdso_parts", host.vdso_parts)
      .add("vdso_digest", host.vdso_digest)
      .add("vdso_functions", host.vdso_functions);
  return object.text();
}

Host read_host(std::string_view json) {
  try {
    return parse(JsonValue::parse(json));
  } catch (const Error& error) {
    throw Error{
        Errc::invalid_argument,
        fmt::format("is not a description of a host: {}: write one there with `icecore host`",
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
