// SPDX-License-Identifier: Apache-2.0
//
// icecore store: what a store holds, and what is to go.
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <icecore/error.hpp>
#include <icecore/image.hpp>
#include <icecore/store.hpp>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "command.hpp"
#include "duration.hpp"
#include "format.hpp"
#include "json/store_entry.hpp"

namespace icecore::tool {
namespace {

std::string time_text(std::chrono::sys_seconds time) {
  if (time.time_since_epoch().count() == 0) return "never";
  return fmt::format("{:%Y-%m-%d %H:%M:%S}",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(time)));
}

std::string count_of(std::uint64_t count, const char* what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

JsonObject describe_entry(const StoreEntry& entry) {
  JsonObject object;
  object.add("name", entry.name).add("image", entry.image.native());
  add_origin(object, entry)
      .add("working_set_bytes", entry.working_set_bytes)
      .add("restores", entry.restores)
      .add("used_at_s", entry.used_at.time_since_epoch().count())
      .add("last_failure", entry.last_failure)
      .add("set_aside", entry.set_aside);
  return object;
}

class StoreCommand final : public Invocation {
 public:
  explicit StoreCommand(CLI::App& app) {
    app.require_subcommand(1);
    add(app, "ls", "List images", &StoreCommand::list);
    add_key(*add(app, "show", "Show all about the images of a key", &StoreCommand::show));
    CLI::App* rm = add(app, "rm", "Remove the images of a key", &StoreCommand::remove);
    add_key(*rm);
    rm->add_option("--name", name_, "Only this one, as `ls` names it")->option_text("NAME");
    CLI::App* gc = add(app, "gc", "Remove images that exceed limits, and what crashes have left",
                       &StoreCommand::collect);
    gc->add_option("--keep", keep_, "Images of one key and worker type")
        ->option_text("N")
        ->check(CLI::NonNegativeNumber);
    gc->add_option("--max-age", max_age_, "None that is older")
        ->option_text("TIME")
        ->check(check_duration);
    gc->add_option("--max-bytes", max_bytes_, "Of all; the least recently used go first")
        ->option_text("SIZE")
        ->check(check_size);
    add(app, "verify", "Read every image and compare it with its digests", &StoreCommand::verify);
  }

  int run() override {
    // To open one that is not there makes it: that is for those who put something in.
    if (!std::filesystem::exists(std::filesystem::path{path_} / "icecore-store"))
      throw Error{Errc::invalid_argument,
                  fmt::format("{}: is no store: it has no file icecore-store; name the folder that "
                              "`icecore run --store` was given",
                              path_)};
    return (this->*action_)(Store::open(path_));
  }

 private:
  using Action = int (StoreCommand::*)(const Store&);

  CLI::App* add(CLI::App& app, const char* name, const char* summary, Action action) {
    CLI::App* command = app.add_subcommand(name, summary);
    command->add_option("DIR", path_, "The store")->option_text(" ")->required();
    add_json_option(*command);
    command->callback([this, action] { action_ = action; });
    return command;
  }

  void add_key(CLI::App& command) {
    command.add_option("KEY", key_, "What the program is known by")->option_text(" ")->required();
  }

  int list(const Store& store) {
    const auto entries = store.list();
    if (json) return print_json("images", entries);
    for (const StoreEntry& entry : entries)
      fmt::print("{}  {}  {}  {:>10}  {}  {}{}\n", entry.name, entry.worker_type,
                 time_text(entry.made_at), human_size(entry.image_bytes),
                 count_of(entry.restores, "restore"), printable(entry.key),
                 entry.set_aside ? "  (set aside)" : "");
    return 0;
  }

  int show(const Store& store) {
    const auto entries = store.list(key_);
    const std::string refusal = store.refusal(key_);
    if (json) {
      JsonObject object;
      object.add("key", key_).add("refusal", refusal).add("images", entries, describe_entry);
      fmt::print(json_stream, "{}\n", object.text());
      return entries.empty() && refusal.empty() ? 1 : 0;
    }
    for (const StoreEntry& entry : entries) print(entry);
    if (!refusal.empty()) fmt::print("could not be snapshotted last: {}\n", refusal);
    if (entries.empty() && refusal.empty()) throw_no_such_key();
    return 0;
  }

  static void print(const StoreEntry& entry) {
    fmt::print("{}\n", entry.image.string());
    fmt::print("  made         {} by {} on {}, worker type {}\n", time_text(entry.made_at),
               entry.made_by, entry.made_on, entry.worker_type);
    fmt::print("  size         {}, working set {}\n", human_size(entry.image_bytes),
               human_size(entry.working_set_bytes));
    fmt::print("  restores     {}, last {}\n", entry.restores, time_text(entry.used_at));
    if (!entry.last_failure.empty())
      fmt::print("  failed       {}: {}{}\n", time_text(entry.failed_at), entry.last_failure,
                 entry.set_aside ? " (set aside)" : "");
    fmt::print("  command      {}\n",
               printable(fmt::format("{}", fmt::join(entry.started.command, " "))));
    fmt::print("  directory    {}\n", printable(entry.started.working_directory));
    for (const std::string& variable : entry.started.variables)
      fmt::print("  variable     {}\n", printable(variable));
    if (!entry.started.cpu_baseline.empty())
      fmt::print("  baseline     {}\n", entry.started.cpu_baseline);
    for (const Dependency& dependency : entry.started.dependencies)
      fmt::print("  depends on   {} ({})\n", printable(dependency.path), dependency.digest);
  }

  int remove(const Store& store) {
    std::vector<StoreEntry> entries = store.list(key_);
    if (!name_.empty())
      std::erase_if(entries, [&](const StoreEntry& entry) { return entry.name != name_; });
    if (entries.empty()) throw_no_such_key();
    for (const StoreEntry& entry : entries) store.remove(entry);
    return print_removed(entries);
  }

  int collect(const Store& store) {
    Store::Limits limits{.keep = keep_, .max_age = {}, .max_bytes = {}};
    if (!max_age_.empty()) limits.max_age = parse_duration(max_age_);
    if (!max_bytes_.empty()) limits.max_bytes = parse_size(max_bytes_);
    const Store::Collected collected = store.collect(limits);
    if (json) {
      JsonObject object;
      object.add("removed", collected.removed, describe_entry)
          .add("removed_bytes", collected.removed_bytes)
          .add("left_bytes", collected.left_bytes);
      fmt::print(json_stream, "{}\n", object.text());
      return 0;
    }
    fmt::print("{} removed, {} freed, {} left\n", count_of(collected.removed.size(), "image"),
               human_size(collected.removed_bytes), human_size(collected.left_bytes));
    return 0;
  }

  int verify(const Store& store) {
    std::vector<StoreEntry> bad;
    const auto entries = store.list();
    for (const StoreEntry& entry : entries) {
      if (entry.set_aside) continue;
      try {
        const Image image = Image::open(entry.image);
        if (image.identity() != entry.image_identity)
          throw Error{Errc::corrupt_image,
                      "is not the image that its entry speaks of; `icecore store gc` removes both"};
        image.verify();
      } catch (const Error& error) {
        fmt::print(stderr, "icecore: {}: {}\n", entry.image.string(), error.what());
        bad.push_back(entry);
        set_aside(store, entry, error.what());
      }
    }
    if (json)
      print_json("damaged", bad);
    else
      fmt::print("{}, {} damaged{}\n", count_of(entries.size(), "image"), bad.size(),
                 bad.empty() ? "" : " and set aside");
    return bad.empty() ? 0 : 1;
  }

  /// In a store that cannot be written to the others are looked at all the same.
  static void set_aside(const Store& store, const StoreEntry& entry, const std::string& reason) {
    try {
      store.note_failure(entry, reason, true);
    } catch (const Error& error) {
      fmt::print(stderr, "icecore: {}: not set aside: {}\n", entry.image.string(), error.what());
    }
  }

  int print_removed(const std::vector<StoreEntry>& entries) const {
    if (json) return print_json("removed", entries);
    for (const StoreEntry& entry : entries) fmt::print("removed {}\n", entry.image.string());
    return 0;
  }

  int print_json(const char* name, const std::vector<StoreEntry>& entries) const {
    fmt::print(json_stream, "{}\n", JsonObject{}.add(name, entries, describe_entry).text());
    return 0;
  }

  [[noreturn]] void throw_no_such_key() const {
    throw Error{
        Errc::invalid_argument,
        fmt::format("store {}: has nothing of key {}{}; `icecore store ls` lists what it has",
                    path_, key_, name_.empty() ? "" : " and name " + name_)};
  }

  std::string path_;
  std::string key_;
  std::string name_;
  std::optional<std::uint64_t> keep_;
  std::string max_age_;
  std::string max_bytes_;
  Action action_ = nullptr;
};

}  // namespace

const Command kStore{
    .name = "store",
    .summary = "List, show, remove or verify the images of a store",
    .failure_status = 1,
    .declare = declare<StoreCommand>,
};

}  // namespace icecore::tool
