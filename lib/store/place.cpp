// SPDX-License-Identifier: Apache-2.0
#include "store/place.hpp"

#include <fmt/format.h>

#include "icecore/error.hpp"
#include "image/digest.hpp"
#include "json/json.hpp"
#include "json/json_value.hpp"
#include "json/store_entry.hpp"
#include "sys/files.hpp"
#include "sys/procfs.hpp"

namespace icecore {
namespace {

constexpr std::int64_t kEntryFormat = 1;

std::chrono::sys_seconds time_of(std::int64_t seconds) {
  return std::chrono::sys_seconds{std::chrono::seconds{seconds}};
}

StoreEntry parse(const JsonValue& object, const Place& place) {
  StoreEntry entry;
  entry.key = object["key"].text();
  entry.name = place.image.filename();
  entry.image = place.image;
  entry.image_identity = object["image_identity"].text();
  entry.image_bytes = static_cast<std::uint64_t>(object["image_bytes"].number());
  entry.made_at = time_of(object["made_at_s"].number());
  entry.made_by = object["made_by"].text();
  entry.made_on = object["made_on"].text();
  entry.worker_type = object["worker_type"].text();
  entry.started.command = object["command"].texts();
  entry.started.working_directory = object["working_directory"].text();
  entry.started.variables = object["variables"].texts();
  entry.started.cpu_baseline = object["cpu_baseline"].text();
  for (const JsonValue& file : object["dependencies"].list())
    entry.started.dependencies.push_back({.path = file["path"].text(),
                                          .digest = file["digest"].text(),
                                          .signature = file["signature"].text()});
  return entry;
}

void add_uses(const Place& place, StoreEntry& entry) {
  if (const auto set = sys::try_status(place.working_set()))
    entry.working_set_bytes = static_cast<std::uint64_t>(set->st_size);
  if (const auto uses = sys::try_status(place.uses())) {
    entry.restores = static_cast<std::uint64_t>(uses->st_size);
    entry.used_at = time_of(uses->st_mtim.tv_sec);
  }
}

void add_failure(const Place& place, StoreEntry& entry) {
  const auto text = sys::try_read_file(place.failure());
  if (!text) return;
  try {
    const JsonValue failure = JsonValue::parse(*text);
    entry.last_failure = failure["reason"].text();
    entry.failed_at = time_of(failure["failed_at_s"].number());
    entry.set_aside = failure["set_aside"].boolean();
  } catch (const Error&) {
    entry.last_failure = "unknown: the file that tells is damaged";
    entry.set_aside = true;
  }
}

}  // namespace

std::filesystem::path folder_of(const std::filesystem::path& store, const std::string& key) {
  const Digest128 digest = digest128(std::as_bytes(std::span{key}));
  const std::string name = fmt::format("{:016x}{:016x}", digest.high, digest.low);
  return store / "keys" / name.substr(0, 2) / name;
}

std::filesystem::path format_file(const std::filesystem::path& store) {
  return store / "icecore-store";
}

std::string to_json(const StoreEntry& entry) {
  JsonObject object{NotUtf8::kept};  // they are compared with what is wanted
  return add_origin(object.add("format", kEntryFormat), entry).text();
}

std::optional<StoreEntry> read_entry(const Place& place) {
  const auto text = sys::try_read_file(place.entry());
  if (!text) return std::nullopt;
  try {
    const JsonValue object = JsonValue::parse(*text);
    if (object["format"].number() != kEntryFormat) return std::nullopt;  // of a newer icecore
    StoreEntry entry = parse(object, place);
    add_uses(place, entry);
    add_failure(place, entry);
    return entry;
  } catch (const Error&) {
    return std::nullopt;  // damaged: gc removes it
  }
}

bool is_damaged_entry(const Place& place) {
  const auto text = sys::try_read_file(place.entry());
  if (!text) return true;
  try {
    return JsonValue::parse(*text)["format"].number() == kEntryFormat && !read_entry(place);
  } catch (const Error&) {
    return true;
  }
}

}  // namespace icecore
