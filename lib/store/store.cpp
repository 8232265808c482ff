// SPDX-License-Identifier: Apache-2.0
//
// A store on disk:
//
//   STORE/icecore-store             the format, "1"
//   STORE/keys/XX/DIGEST/           one folder for each key
//       NUMBER-RANDOM.icecore       an image; beside it .entry, .ws, .uses and .failure
//       refusal                     why no image could be made last
//       lock                        locked by whoever makes an image, until it ends
//
// An image counts from the moment that its entry is there, which is written last and removed first.
#include "icecore/store.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>
#include <random>
#include <set>
#include <string_view>

#include "icecore/error.hpp"
#include "icecore/image.hpp"
#include "icecore/version.h"
#include "image/new_file.hpp"
#include "json/json.hpp"
#include "json/json_value.hpp"
#include "store/dependency.hpp"
#include "store/place.hpp"
#include "sys/files.hpp"
#include "sys/machine.hpp"
#include "sys/procfs.hpp"

namespace icecore {
namespace {

namespace fs = std::filesystem;

constexpr const char* kStoreFormat = "1\n";
constexpr const char* kImageSuffix = ".icecore";

std::chrono::sys_seconds now() {
  return std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
}

std::string remedy_for(int error) {
  switch (error) {
    case EACCES:
    case EPERM:
      return "; run icecore as the owner of the store, or name another folder";
    case EROFS:
      return "; name a folder that can be written to";
    case ENOTDIR:
    case EEXIST:
      return "; name a folder, or one that is not there yet";
    case ENOSPC:
    case EDQUOT:
      return "; `icecore store gc` removes what is not needed";
    default:
      return {};
  }
}

/// Turns what std::filesystem throws into what we throw.
template <class Work>
auto guarded(Work work) {
  try {
    return work();
  } catch (const fs::filesystem_error& error) {
    const int number = error.code().value();
    throw Error{number == EACCES || number == EPERM ? Errc::permission : Errc::io,
                fmt::format("store: {}: {}{}", error.path1().string(), error.code().message(),
                            remedy_for(number)),
                number};
  }
}

void write_file(const fs::path& path, const std::string& text, bool fsync = true) {
  NewFile file{path};
  file.write_at(0, std::as_bytes(std::span{text}));
  file.commit(fsync);
}

void try_write_file(const fs::path& path, const std::string& text) noexcept {
  try {
    write_file(path, text, false);
  } catch (const std::exception&) {
    // Then there is one image less.
  }
}

/// Images of one key, those with an entry or all, the latest first.
std::vector<Place> places_in(const fs::path& folder, bool with_entry) {
  std::vector<Place> places;
  std::error_code absent;
  for (const auto& file : fs::directory_iterator{folder, absent}) {
    const std::string name = file.path().filename();
    const std::string suffix = with_entry ? std::string{kImageSuffix} + ".entry" : kImageSuffix;
    if (!name.ends_with(suffix) || name.starts_with('.')) continue;
    const std::size_t kept = name.size() - suffix.size() + std::strlen(kImageSuffix);
    places.push_back({folder / name.substr(0, kept)});
  }
  std::ranges::sort(places, std::greater{}, &Place::image);
  return places;
}

/// Numbers have eight digits, so names are in the order of their numbers.
std::string next_name(const fs::path& folder) {
  unsigned number = 0;
  for (const Place& place : places_in(folder, false)) {
    const std::string name = place.image.filename();
    unsigned other = 0;
    std::from_chars(name.data(), name.data() + std::min(name.size(), std::size_t{8}), other);
    number = std::max(number, other);
  }
  return fmt::format("{:08}-{:08x}{}", number + 1, std::random_device{}(), kImageSuffix);
}

/// An image from the future was made before the clock was set back: nobody knows how old it is.
bool is_young_enough(const StoreEntry& entry, std::optional<std::chrono::seconds> max_age) {
  return !max_age || (entry.made_at <= now() && now() - entry.made_at < *max_age);
}

std::string first_difference(const std::vector<std::string>& made,
                             const std::vector<std::string>& wanted) {
  for (const std::string& variable : wanted)
    if (std::ranges::find(made, variable) == made.end())
      return fmt::format("made with another value of {}", variable.substr(0, variable.find('=')));
  return "made of other variables";
}

/// Whether two reasons are the same but for their numbers, hexadecimal ones too.
bool same_but_for_numbers(std::string_view a, std::string_view b) {
  constexpr const char* kDigits = "0123456789abcdef";
  const auto is_number = [](std::string_view word) {
    return word.find_first_of("0123456789") != word.npos &&
           word.find_first_not_of(kDigits) == word.npos;
  };
  const auto next_word = [](std::string_view& text) {
    std::size_t end = 0;
    while (end < text.size() && std::isalnum(static_cast<unsigned char>(text[end])) != 0) ++end;
    end = std::max(end, std::min(text.size(), std::size_t{1}));
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(end);
    return word;
  };
  while (!a.empty() && !b.empty()) {
    const std::string_view one = next_word(a), other = next_word(b);
    if (one != other && !(is_number(one) && is_number(other))) return false;
  }
  return a.empty() && b.empty();
}

std::uint64_t bytes_of(const StoreEntry& entry) {
  return entry.image_bytes + entry.working_set_bytes;
}

std::uint64_t remove_file(const fs::path& path) {
  std::error_code ignored;
  const auto size = fs::file_size(path, ignored);
  return fs::remove(path, ignored) ? size : 0;
}

std::uint64_t remove_all(const Place& place) {
  std::uint64_t bytes = remove_file(place.entry());
  for (const fs::path& path : {place.uses(), place.failure(), place.working_set(), place.image})
    bytes += remove_file(path);
  return bytes;
}

/// The entry first: from then on there is no such image.  Throws where it cannot be removed.
std::uint64_t remove_image(const Place& place) {
  if (fs::exists(place.entry())) {
    const auto bytes = fs::file_size(place.entry());
    fs::remove(place.entry());
    return bytes + remove_all(place);
  }
  return remove_all(place);
}

}  // namespace

std::string why_unfit(const StoreEntry& entry, const Wanted& wanted) {
  const StartedAs& made = entry.started;
  if (entry.set_aside) return "set aside: " + entry.last_failure;
  if (made.command != wanted.started.command) return "made of another command line";
  if (made.working_directory != wanted.started.working_directory)
    return "made in " + made.working_directory;
  if (made.variables != wanted.started.variables)
    return first_difference(made.variables, wanted.started.variables);
  if (made.cpu_baseline != wanted.started.cpu_baseline) return "made for another --cpu-baseline";
  if (!std::ranges::equal(made.dependencies, wanted.started.dependencies, {}, &Dependency::path,
                          &Dependency::path))
    return "depends on other files";
  if (!is_young_enough(entry, wanted.max_age))
    return entry.made_at > now() ? "from the future: the clock has been set back" : "too old";
  for (const Dependency& dependency : made.dependencies)
    if (!is_unchanged(dependency)) return dependency.path + " has changed";
  return {};
}

Store Store::open(const fs::path& folder) {
  return guarded([&] {
    // Nobody waits until that file is on disk: one that a power failure has left empty is made
    // anew.
    const auto format = sys::try_read_file(format_file(folder));
    if (format && !format->empty()) {
      if (*format != kStoreFormat)
        throw Error{
            Errc::incompatible,
            fmt::format(
                "store {}: is of a newer icecore, or its file icecore-store is damaged: use "
                "that icecore, or another folder",
                folder.string())};
      return Store{folder, false};
    }
    if (fs::create_directories(folder)) fs::permissions(folder, fs::perms::owner_all);
    if (!format && !fs::is_empty(folder) && !fs::exists(folder / "keys"))
      throw Error{Errc::invalid_argument,
                  fmt::format("store {}: is a folder of something else: it is not empty and has no "
                              "file icecore-store; name another one, or one that is empty",
                              folder.string())};
    fs::create_directories(folder / "keys");
    write_file(format_file(folder), kStoreFormat, false);
    return Store{folder, false};
  });
}

Store Store::single(const fs::path& image) {
  return guarded([&] { return Store{fs::absolute(image), true}; });
}

std::vector<StoreEntry> Store::list(const std::string& key) const {
  return guarded([&] {
    std::vector<StoreEntry> entries;
    const auto add = [&](const Place& place) {
      if (auto entry = read_entry(place); entry && entry->key == key)
        entries.push_back(std::move(*entry));
    };
    if (single_)
      add(Place{path_});
    else
      std::ranges::for_each(places_in(folder_of(path_, key), true), add);
    return entries;
  });
}

std::vector<StoreEntry> Store::find(const std::string& key, const Wanted& wanted) const {
  std::vector<StoreEntry> entries = list(key);
  std::erase_if(entries,
                [&](const StoreEntry& entry) { return !why_unfit(entry, wanted).empty(); });
  // Not that of std::ranges: clang 14 and libstdc++ 12 do not agree on its result.
  std::stable_partition(entries.begin(), entries.end(), [&](const StoreEntry& entry) {
    return entry.worker_type == wanted.worker_type;
  });
  return entries;
}

std::vector<StoreEntry> Store::list() const {
  return guarded([&] {
    std::vector<StoreEntry> entries;
    const auto add = [&](const Place& place) {
      if (auto entry = read_entry(place)) entries.push_back(std::move(*entry));
    };
    if (single_) {
      add(Place{path_});
      return entries;
    }
    for (const auto& some : fs::directory_iterator{path_ / "keys"})
      for (const auto& folder : fs::directory_iterator{some.path()})
        std::ranges::for_each(places_in(folder.path(), true), add);
    std::ranges::sort(entries, [](const StoreEntry& a, const StoreEntry& b) {
      return std::tie(a.key, a.name) < std::tie(b.key, b.name);
    });
    return entries;
  });
}

// ---- new images ---------------------------------------------------------------------------------

struct Store::NewImage::State {
  std::string key;
  Place place;
  fs::path refusal;
  sys::Fd lock;                                // given back when it is closed, also by our death
  std::optional<sys::FileStatus> before = {};  // of a file that is replaced
  std::optional<std::string> entry_before = {};
  bool committed = false;

  bool has_written() const {
    const auto now = sys::try_status(place.image);
    return now && !(before && now->st_dev == before->st_dev && now->st_ino == before->st_ino);
  }
};

Store::NewImage::NewImage(std::unique_ptr<State> state) : state_(std::move(state)) {}
Store::NewImage::NewImage(NewImage&&) noexcept = default;

Store::NewImage::~NewImage() {
  if (!state_ || state_->committed) return;
  if (state_->has_written())
    remove_all(state_->place);
  else if (state_->entry_before)
    try_write_file(state_->place.entry(), *state_->entry_before);
}

fs::path Store::NewImage::path() const { return state_->place.image; }

void Store::NewImage::commit(StoreEntry entry) {
  guarded([&] {
    const Place& place = state_->place;
    entry.key = state_->key;
    entry.image_bytes = fs::file_size(place.image);
    entry.image_identity = Image::open(place.image).identity();
    entry.made_at = now();
    entry.made_by = "icecore " ICECORE_VERSION;
    entry.made_on = sys::machine_name();
    // Where it replaces another one, they tell of that.
    for (const fs::path& path : {place.uses(), place.failure(), place.working_set()})
      remove_file(path);
    write_file(place.entry(), to_json(entry));
    state_->committed = true;
    remove_file(state_->refusal);
  });
}

namespace {

/// What was written there by mistake would be gone for good.
void refuse_what_is_no_image(const Place& place) {
  const auto there = sys::try_status(place.image);
  if (!there || (S_ISREG(there->st_mode) && there->st_size == 0) || read_entry(place)) return;
  try {
    Image::open(place.image);
  } catch (const Error&) {
    throw Error{Errc::invalid_argument,
                fmt::format("{}: is there, and no image of icecore: name another file, or remove "
                            "that one",
                            place.image.string())};
  }
}

}  // namespace

std::optional<Store::NewImage> Store::begin(const std::string& key) const {
  return guarded([&]() -> std::optional<NewImage> {
    if (single_) refuse_what_is_no_image(Place{path_});
    const fs::path folder = single_ ? path_.parent_path() : folder_of(path_, key);
    if (!single_) fs::create_directories(folder);
    sys::Fd lock = sys::try_lock(single_ ? path_.native() + ".lock" : (folder / "lock").native());
    if (!lock) return std::nullopt;
    Place place{single_ ? path_ : folder / next_name(folder)};
    const auto before = sys::try_status(place.image);
    const auto entry_before = single_ ? sys::try_read_file(place.entry()) : std::nullopt;
    if (single_) remove_file(place.entry());  // it tells of the image that is replaced now
    return NewImage{
        std::unique_ptr<NewImage::State>{new NewImage::State{.key = key,
                                                             .place = std::move(place),
                                                             .refusal = refusal_file(key),
                                                             .lock = std::move(lock),
                                                             .before = before,
                                                             .entry_before = entry_before}}};
  });
}

// ---- notes --------------------------------------------------------------------------------------

void Store::note_restore(const StoreEntry& entry) const {
  sys::append_byte(Place{entry.image}.uses());
}

void Store::note_failure(const StoreEntry& entry, const std::string& reason, bool set_aside) const {
  JsonObject failure;
  failure.add("reason", reason)
      .add("failed_at_s", now().time_since_epoch().count())
      .add("set_aside", set_aside);
  write_file(Place{entry.image}.failure(), failure.text());
}

fs::path Store::refusal_file(const std::string& key) const {
  return single_ ? fs::path{path_.native() + ".refusal"} : folder_of(path_, key) / "refusal";
}

bool Store::note_refusal(const std::string& key, const std::string& reason) const {
  if (same_but_for_numbers(refusal(key), reason)) return false;
  const fs::path file = refusal_file(key);
  guarded([&] { fs::create_directories(file.parent_path()); });
  write_file(file, reason);
  return true;
}

std::string Store::refusal(const std::string& key) const {
  return sys::try_read_file(refusal_file(key)).value_or("");
}

// ---- removing -----------------------------------------------------------------------------------

void Store::remove(const StoreEntry& entry) const {
  guarded([&] { remove_image(Place{entry.image}); });
}

namespace {

/// What has no entry, in the folder of a key of which nobody makes an image now.
std::uint64_t remove_rubbish(const fs::path& folder) {
  const sys::Fd lock = sys::try_lock((folder / "lock").native());
  if (!lock) return 0;
  std::set<std::string> alive;
  for (const Place& place : places_in(folder, true))
    if (!is_damaged_entry(place)) alive.insert(place.image.filename());
  std::uint64_t bytes = 0;
  for (const auto& file : fs::directory_iterator{folder}) {
    const std::string name = file.path().filename();
    if (name == "lock" || name == "refusal") continue;
    const std::size_t end = name.find(kImageSuffix);
    const std::string image =
        end == name.npos ? name : name.substr(0, end + std::strlen(kImageSuffix));
    if (!alive.contains(image)) bytes += remove_file(file.path());
  }
  return bytes;
}

}  // namespace

Store::Collected Store::collect(const Limits& limits) const {
  return guarded([&] {
    Collected result;
    std::vector<StoreEntry> entries = list();
    const auto drop = [&](const StoreEntry& entry) {
      result.removed_bytes += remove_image(Place{entry.image});
      result.removed.push_back(entry);
    };
    std::map<std::pair<std::string, std::string>, std::uint64_t> count;
    std::ranges::reverse(entries);  // the latest of a key first
    std::erase_if(entries, [&](const StoreEntry& entry) {
      const bool extra =
          !entry.set_aside && limits.keep && ++count[{entry.key, entry.worker_type}] > *limits.keep;
      if (!entry.set_aside && !extra && is_young_enough(entry, limits.max_age)) return false;
      drop(entry);
      return true;
    });

    std::ranges::sort(entries, {}, [](const StoreEntry& entry) {
      return std::max(entry.made_at, entry.used_at);
    });
    for (const StoreEntry& entry : entries) result.left_bytes += bytes_of(entry);
    for (const StoreEntry& entry : entries) {
      if (!limits.max_bytes || result.left_bytes <= *limits.max_bytes) break;
      result.left_bytes -= bytes_of(entry);
      drop(entry);
    }
    if (single_) return result;
    for (const auto& some : fs::directory_iterator{path_ / "keys"})
      for (const auto& folder : fs::directory_iterator{some.path()})
        result.removed_bytes += remove_rubbish(folder.path());
    return result;
  });
}

}  // namespace icecore
