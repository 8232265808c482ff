// SPDX-License-Identifier: Apache-2.0
//
// icecore run: a program that starts once, and comes back from its snapshot ever after.
#include <fmt/format.h>
#include <icecore/error.hpp>
#include <icecore/host.hpp>
#include <icecore/restore.hpp>
#include <icecore/snapshot.hpp>
#include <icecore/store.hpp>
#include <malloc.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "cold_start.hpp"
#include "command.hpp"
#include "descriptor.hpp"
#include "duration.hpp"
#include "foreground.hpp"
#include "hidden_gpus.hpp"
#include "json/json.hpp"
#include "passed_on.hpp"
#include "ready.hpp"
#include "report.hpp"
#include "restore_options.hpp"
#include "signals.hpp"

extern "C" const char __executable_start, etext;  // of the linker

namespace icecore::tool {
namespace {

namespace fs = std::filesystem;

/// The file that a command runs, as the kernel would find it; empty: none.
fs::path find_executable(const std::string& command) {
  if (command.find('/') != std::string::npos) return command;
  const char* const path = std::getenv("PATH");
  const std::string_view folders = path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin";
  for (std::size_t at = 0; at <= folders.size();) {
    const std::size_t end = std::min(folders.find(':', at), folders.size());
    const fs::path file = fs::path{folders.substr(at, end - at)} / command;
    if (::access(file.c_str(), X_OK) == 0 && fs::is_regular_file(file)) return file;
    at = end + 1;
  }
  return {};
}

/// What an interpreter was given to run: its first argument that is no option, if it is a file.
fs::path find_script(const std::vector<std::string>& command) {
  for (std::size_t i = 1; i < command.size(); ++i) {
    if (command[i].starts_with('-')) continue;
    std::error_code ignored;
    return fs::is_regular_file(command[i], ignored) ? fs::path{command[i]} : fs::path{};
  }
  return {};
}

/// Whether a child has ended, or does so within a moment: while it does, it may no longer be
/// traced.
bool has_ended(pid_t pid) {
  constexpr int kMomentMs = 100;
  ::pollfd end{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)), POLLIN, 0};
  const bool ended = end.fd < 0 || ::poll(&end, 1, kMomentMs) == 1;
  if (end.fd >= 0) ::close(end.fd);
  return ended;
}

/// What a snapshot will touch, while the program is still starting: our code, and some memory.  It
/// stands still for 4.2 ms instead of 4.7 then (python3 with numpy).
void warm_up() {
  constexpr std::size_t kMemory = std::size_t{1} << 20;
  ::mallopt(M_ARENA_MAX, 1);  // threads take theirs from the same
  ::mallopt(M_TRIM_THRESHOLD, 4 * kMemory);
  ::mallopt(M_MMAP_THRESHOLD, 2 * kMemory);
  void* const memory = std::malloc(kMemory);
  if (memory != nullptr) ::explicit_bzero(memory, kMemory);
  std::free(memory);
  const auto begin = reinterpret_cast<std::uintptr_t>(&__executable_start) & ~std::uintptr_t{4095};
  const auto end = reinterpret_cast<std::uintptr_t>(&etext);
  ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_READ);
}

class Run final : public Invocation {
 public:
  explicit Run(CLI::App& app) : choices_(app) {
    app.footer("icecore run (--store DIR --key KEY | -o IMAGE) [OPTIONS] -- COMMAND [ARGUMENTS]");
    CLI::Option* store =
        app.add_option("--store", store_path_, "Where images are kept, by key")->option_text("DIR");
    CLI::Option* key = app.add_option("--key", key_, "What the program is known by in the store")
                           ->option_text("KEY")
                           ->needs(store);
    store->needs(key);
    app.add_option("-o,--output", image_, "One image instead of a store")
        ->option_text("IMAGE")
        ->excludes(store);
    app.add_option(
           "--ready", ready_,
           "When to take the snapshot: when the program says so (notify, the default, as of "
           "sd_notify; guest), listens on a port, has made a file, has written a line "
           "that matches, or some time after its start")
        ->option_text("notify|guest|port:N|file:PATH|log:REGEX|delay:SECONDS")
        ->check(check_ready);
    app.add_option("--deadline", deadline_,
                   "How long to wait for that (60 s); then the program goes on without snapshot")
        ->option_text("TIME")
        ->check(check_duration);
    app.add_option("--depends", depends_,
                   "A file or folder on which the snapshot depends besides the executable and the "
                   "script; may be repeated")
        ->option_text("PATH")
        ->allow_extra_args(false)
        ->check([](const std::string& path) { return path.empty() ? "is empty" : ""; });
    app.add_option("--env-key", env_keys_,
                   "A variable on whose value the snapshot depends; may be repeated")
        ->option_text("NAME")
        ->allow_extra_args(false);
    app.add_option("--max-age", max_age_, "Do not use an image that is older")
        ->option_text("TIME")
        ->check(check_duration);
    app.add_option("--cpu-baseline", cpu_baseline_,
                   "Keep the program from using more of the CPU, so that its image fits more "
                   "machines")
        ->option_text("x86-64-v2|x86-64-v3|x86-64-v4")
        ->check([](const std::string& text) {
          return text == "x86-64-v2" || text == "x86-64-v3" || text == "x86-64-v4"
                     ? std::string{}
                     : text + " is not x86-64-v2, x86-64-v3 or x86-64-v4";
        });
    app.add_option(
           "--gpu", gpu_,
           "A program that uses CUDA: its device memory is in its snapshot (checkpoint, the "
           "default); it is not snapshotted (none); it sees no GPU until its snapshot is "
           "taken, and has them from then on (hidden)")
        ->option_text("none|hidden|checkpoint")
        ->check([](const std::string& text) {
          return text == "none" || text == "hidden" || text == "checkpoint"
                     ? std::string{}
                     : text + " is not none, hidden or checkpoint";
        });
    app.add_option("--env", invocation_.variables,
                   "A variable of this invocation alone, for programs that ask libicecore_guest or "
                   "read the file that ICECORE_INVOCATION names; may be repeated")
        ->option_text("NAME=VALUE")
        ->allow_extra_args(false)
        ->check([](const std::string& text) {
          const std::size_t equals = text.find('=');
          return equals != std::string::npos && equals != 0 ? std::string{}
                                                            : text + " is not NAME=VALUE";
        });
    app.add_flag(
        "--no-fallback", no_fallback_,
        "End with 125 when an image that fits cannot be restored, instead of starting cold");
    app.add_flag("--verbose", verbose_, "Say on standard error what is done, and why");
    add_json_option(app);
  }

  int run() override {
    json_stream = stderr;  // standard output is that of the program
    if (behind_dashes.empty() || behind_dashes[0] == "--")
      throw CLI::ValidationError{"run", "give a command behind --"};
    if (store_path_.empty() && image_.empty())
      throw CLI::ValidationError{"run", "give --store and --key, or -o"};
    passed_on_.emplace();
    ::pthread_sigmask(SIG_SETMASK, nullptr, &mask_before_);
    const BlockedSignals blocked{foreground_signals()};
    prepare();
    if (store_)
      if (const auto status = run_restored()) return *status;
    return run_cold();
  }

 private:
  /// Where things are found wanting, the program is started all the same.
  void prepare() {
    const auto second = std::ranges::find(behind_dashes, "--");
    command_.assign(behind_dashes.begin(), second);
    if (second != behind_dashes.end())
      invocation_.arguments.assign(second + 1, behind_dashes.end());
    try {
      store_ = image_.empty() ? Store::open(store_path_) : Store::single(image_);
    } catch (const std::exception& error) {
      warn("no store: {}", error.what());
      return;
    }
    try {
      wanted_.started = how_it_starts();
    } catch (const std::exception& error) {
      warn("not snapshotted: {}", error.what());
      store_.reset();
      return;
    }
    if (!max_age_.empty()) wanted_.max_age = parse_duration(max_age_);
  }

  StartedAs how_it_starts() const {
    StartedAs started{.command = command_,
                      .working_directory = fs::current_path(),
                      .variables = {},
                      .cpu_baseline = cpu_baseline_,
                      .dependencies = {}};
    for (const std::string& name : env_keys_) {
      const char* const value = std::getenv(name.c_str());
      started.variables.push_back(value != nullptr ? name + "=" + value : name);
    }
    for (const fs::path& path : {find_executable(command_[0]), find_script(command_)})
      if (!path.empty()) started.dependencies.push_back(depend_on(path));
    for (const std::string& path : depends_) started.dependencies.push_back(depend_on(path));
    return started;
  }

  // ---- from an image ----------------------------------------------------------------------------

  std::optional<int> run_restored() {
    std::vector<StoreEntry> entries;
    try {
      entries = store_->find(key_, wanted_);
      if (entries.size() > 1) {  // which one is better?
        wanted_.worker_type = this_host().worker_type;
        entries = store_->find(key_, wanted_);
      }
    } catch (const Error& error) {
      warn("look-up: {}", error.what());
    }
    for (const StoreEntry& entry : entries) found_.push_back(entry.image_identity);
    if (entries.empty()) why_cold_ = why_none_fits();
    for (const StoreEntry& entry : entries)
      if (const auto status = run_restored(entry)) return status;
    return std::nullopt;
  }

  /// For people: the latest image of the key is the one they think of.
  std::string why_none_fits() const {
    std::string why = "no image fits";
    if (!json && !verbose_) return why;
    note([&] {
      const auto entries = store_->list(key_);
      why = entries.empty() ? "there is no image"
                            : fmt::format("no image fits: {}: {}", entries[0].name,
                                          why_unfit(entries[0], wanted_));
    });
    return why;
  }

  std::optional<int> run_restored(const StoreEntry& entry) {
    std::optional<RestoredProcess> process;
    try {
      const Image image = Image::open(entry.image);
      if (image.identity() != entry.image_identity) {
        why_cold_ = "the image has been replaced";
        return std::nullopt;
      }
      RestoreOptions options = restore_options();
      passed_on_->give(image, options);
      process.emplace(restore(image, options));
    } catch (const Error& error) {
      give_up(entry, error);
      return std::nullopt;
    }
    const auto begin = std::chrono::steady_clock::now();
    note([&] { store_->note_restore(entry); });
    notify_our_own_supervisor("READY=1");
    say_restored(entry, *process);
    const Ending ending = stay_in_foreground(*process);
    constexpr auto kFirstMoments = std::chrono::seconds{2};
    if (!ending.our_fault) return ending.status;
    note([&] { store_->note_failure(entry, ending.fault, true); });
    if (no_fallback_ || std::chrono::steady_clock::now() - begin > kFirstMoments)
      return kOwnFailure;
    warn("{}: set aside: {}", entry.image.string(), ending.fault);
    why_cold_ = ending.fault;
    failed_ = Failed{entry.image, true};
    return std::nullopt;
  }

  RestoreOptions restore_options() const {
    RestoreOptions options = choices_.options();
    options.invocation = invocation_;
    return options;
  }

  /// What is wrong with an image stays wrong; what is wrong here and now may pass.
  void give_up(const StoreEntry& entry, const Error& error) {
    why_cold_ = error.what();
    if (error.code() == Errc::incompatible) {
      if (verbose_) warn("{}: {}", entry.image.string(), error.what());
      return;
    }
    if (error.sys_errno() == ENOENT && ::access(entry.image.c_str(), F_OK) != 0) return;  // removed
    const bool for_good = error.code() == Errc::corrupt_image || error.code() == Errc::internal;
    note([&] { store_->note_failure(entry, error.what(), for_good); });
    if (no_fallback_) throw error;
    failed_ = Failed{entry.image, for_good};
    warn("{}: {}{}; starting cold", entry.image.string(), for_good ? "set aside: " : "",
         error.what());
  }

  // ---- cold
  // ---------------------------------------------------------------------------------------

  int run_cold() {
    if (store_ && gpu_ == "hidden") hide_gpus();
    const auto ready = store_ ? make_ready(ready_.empty() ? "notify" : ready_) : nullptr;
    std::vector<std::string> environment;
    if (!cpu_baseline_.empty()) environment = baseline_environment(cpu_baseline_);
    const Descriptor invocation{make_invocation_file(invocation_)};
    environment.push_back(fmt::format("ICECORE_INVOCATION=/proc/self/fd/{}", invocation.get()));
    ColdStart start{
        .command = command_,
        .executable = find_executable(command_[0]),
        .environment = std::move(environment),
        .signal_mask = mask_before_,
        .inherited = invocation.get(),
        .ready = ready.get(),
        .deadline = parse_duration(deadline_).value(),
        .when_ready =
            [this](pid_t pid) {
              take_snapshot(pid);
              show_gpus();
            },
        .when_late =
            [this] {
              warn(
                  "not snapshotted: the program was not ready ({}) within {} s; say with "
                  "--ready by what it shows, or give a longer --deadline",
                  ready_.empty() ? "notify" : ready_, parse_duration(deadline_)->count());
              show_gpus();
            },
        .when_started =
            [&](pid_t pid) {
              say_cold(pid);
              if (ready) warm_up();
            }};
    return tool::run_cold(start);
  }

  void hide_gpus() {
    try {
      hidden_gpus_.emplace();
    } catch (const Error& error) {
      warn("not snapshotted: {}", error.what());
      store_.reset();
    }
  }

  void show_gpus() {
    if (!hidden_gpus_) return;
    try {
      hidden_gpus_->show();
    } catch (const Error& error) {
      warn("the program goes on without GPUs: {}", error.what());
    }
  }

  /// Whoever says that it is ready does so through a socket, and closes it a moment later.
  SnapshotReport snapshot_when_settled(pid_t pid, const fs::path& image) const {
    const SnapshotOptions options{
        .copy_on_write = true,
        .outside = {0, 1, 2},
        .cpu_baseline = cpu_baseline_,
        .gpu = gpu_ == "checkpoint" ? GpuPolicy::checkpoint : GpuPolicy::none};
    for (const int pause_ms : {2, 10, 40, 150}) {
      try {
        return snapshot(pid, image, options);
      } catch (const Error& error) {
        if (error.code() != Errc::unsupported || ready_ == "guest") throw;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds{pause_ms});
    }
    return snapshot(pid, image, options);
  }

  void take_snapshot(pid_t pid) {
    try {
      const bool made = is_made();
      auto place = made ? std::nullopt : store_->begin(key_);
      if (!place) {
        if (verbose_)
          fmt::print(stderr, "icecore: somebody else {} an image of this\n",
                     made ? "has made" : "makes");
        return let_guest_go_on(pid);
      }
      const SnapshotReport report = snapshot_when_settled(pid, place->path());
      StoreEntry entry;
      entry.started = wanted_.started;
      entry.worker_type = this_host().worker_type;
      if (const std::string changed = complete(entry.started.dependencies); !changed.empty())
        throw Error{
            Errc::incompatible,
            fmt::format("{} has changed since the program was started; the next start makes "
                        "an image of it as it is then",
                        changed)};
      throw_if_it_would_not_come_back(place->path());
      place->commit(std::move(entry));
      say_snapshotted(place->path(), report);
    } catch (const Error& error) {
      note([&] { let_guest_go_on(pid); });
      explain(error, pid);
    } catch (const std::exception& error) {
      note([&] { let_guest_go_on(pid); });
      warn("not snapshotted: {}", error.what());
    }
  }

  /// By somebody on such a machine who was started at the same time, and ready sooner.
  bool is_made() const {
    return std::ranges::any_of(store_->find(key_, wanted_), [&](const StoreEntry& entry) {
      return std::ranges::find(found_, entry.image_identity) == found_.end() &&
             entry.worker_type == this_host().worker_type;
    });
  }

  /// Such as a descriptor that leads outside and that nobody has said what to do about.  What only
  /// the program that goes on keeps from others, as its port, will be free by then.
  void throw_if_it_would_not_come_back(const fs::path& image) const {
    std::vector<std::string> reasons;
    const Image made = Image::open(image);
    RestoreOptions options = restore_options();
    passed_on_->give_own(made, options);
    for (const Finding& finding : made.check(options))
      if (!finding.ok && !finding.transient)
        reasons.push_back(finding.subject + ": " + finding.reason +
                          (finding.remedy.empty() ? "" : ": " + finding.remedy));
    if (!reasons.empty())
      throw Error{Errc::unsupported, "the image could not be restored:", std::move(reasons)};
  }

  /// A program that cannot be snapshotted is not worth a message each time it is started.
  void explain(const Error& error, pid_t pid) {
    if (error.code() == Errc::target_gone || has_ended(pid)) {
      if (verbose_) warn("not snapshotted: {}", error.what());
      return;
    }
    std::string reason;  // without the process id of the headline
    for (const std::string& each : error.reasons()) reason += each + "\n";
    if (reason.empty()) reason = error.what();
    bool is_new = true;
    if (error.code() != Errc::invalid_argument)  // a matter of how we were called
      note([&] { is_new = store_->note_refusal(key_, reason); });
    if (is_new || verbose_) warn("not snapshotted: {}", error.what());
  }

  // ---- what is said
  // -------------------------------------------------------------------------------

  template <class... Args>
  void warn(fmt::format_string<Args...> text, Args&&... args) const {
    fmt::print(stderr, "icecore: warning: {}\n", fmt::format(text, std::forward<Args>(args)...));
  }

  /// A store that cannot be written to must not keep the program from running.
  template <class Write>
  void note(Write write) const {
    try {
      write();
    } catch (const Error& error) {
      if (verbose_) warn("{}", error.what());
    }
  }

  void say(const JsonObject& object) const {
    if (json) fmt::print(json_stream, "{}\n", object.text());
  }

  void say_restored(const StoreEntry& entry, const RestoredProcess& process) const {
    JsonObject object;
    object.add("start", "restored").add("image", entry.image.native());
    say(add_report(object, process));
    if (!verbose_) return;
    for (const std::string& warning : process.report().warnings) warn("{}", warning);
    fmt::print(stderr, "icecore: restored from {} in {:.1f} ms\n", entry.image.string(),
               std::chrono::duration<double, std::milli>(process.report().total).count());
  }

  void say_cold(pid_t pid) const {
    JsonObject object;
    object.add("start", "cold").add("reason", why_cold_).add("fallback", failed_.has_value());
    if (failed_)
      object.add("failed_image", failed_->image.native()).add("set_aside", failed_->set_aside);
    say(object.add("pid", pid));
    if (verbose_) fmt::print(stderr, "icecore: started cold: {}\n", why_cold_);
  }

  void say_snapshotted(const fs::path& image, const SnapshotReport& report) const {
    JsonObject object;
    object.add("snapshot", image.native());
    add_report(object, report);
    say(object);
    if (verbose_) fmt::print(stderr, "icecore: snapshotted to {}\n", image.string());
  }

  RestoreChoices choices_;
  std::string store_path_;
  std::string key_;
  std::string image_;
  std::string ready_;
  std::string deadline_ = "60";
  std::vector<std::string> depends_;
  std::vector<std::string> env_keys_;
  std::string max_age_;
  std::string cpu_baseline_;
  std::string gpu_ = "checkpoint";
  std::optional<HiddenGpus> hidden_gpus_;
  bool no_fallback_ = false;
  bool verbose_ = false;

  icecore::Invocation invocation_;
  std::vector<std::string> command_;
  std::optional<PassedOn> passed_on_;
  sigset_t mask_before_{};
  std::optional<Store> store_;
  Wanted wanted_;
  std::vector<std::string> found_;  ///< identities of the images that were there at the start
  std::string why_cold_ = "no store";

  /// The last image of which a restore was tried, in vain.
  struct Failed {
    fs::path image;
    bool set_aside;
  };
  std::optional<Failed> failed_;
};

}  // namespace

const Command kRun{
    .name = "run",
    .summary = "Run a program, from its snapshot where there is one that fits",
    .failure_status = kOwnFailure,
    .declare = declare<Run>,
};

}  // namespace icecore::tool
