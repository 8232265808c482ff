// SPDX-License-Identifier: Apache-2.0
//
// How long until a function has answered one request, and how much memory does it hold then:
// started cold, with and without a snapshot being made of it; restored; by `icecore run` from a
// warm store; prepared ahead; and, as the limit, by a program that runs already?  One at a time,
// and several at once.  And how long does a look-up take in a store of many images?
//
// The clock runs from before the command is started, or the prepared process, until its answer has
// been read.  The ways take turns, so that a busy machine is busy for all of them.
#include <fmt/format.h>
#include <icecore/host.hpp>
#include <icecore/restore.hpp>
#include <icecore/store.hpp>
#include <stdlib.h>

#include <barrier>
#include <fstream>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "observe.hpp"
#include "options.hpp"
#include "process.hpp"
#include "statistics.hpp"
#include "support/pagers.hpp"
#include "workplace.hpp"

namespace bench {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::size_t runs = 100;
  std::size_t images = 10'000;  ///< in the store for look-ups
  std::vector<std::size_t> at_once = {1, 4};
  bool quick = false;
  bool json = false;
  bool cold = false;  ///< drop the page cache before every invocation
  std::set<std::string> workloads = {};
  fs::path folder = fs::temp_directory_path();
};

constexpr const char* kUsage =
    "coldstart [--runs N] [--quick] [--json] [--cold] [--workload numpy|torch|look-up]... "
    "[--at-once N] [--folder PATH]\n";

Options parse(const Words& words) {
  Options options;
  parse_options(
      words, {{"--quick", &options.quick}, {"--json", &options.json}, {"--cold", &options.cold}},
      {{"--runs", [&](const std::string& value) { options.runs = std::stoul(value); }},
       {"--at-once", [&](const std::string& value) { options.at_once = {std::stoul(value)}; }},
       {"--workload", [&](const std::string& value) { options.workloads.insert(value); }},
       {"--folder", [&](const std::string& value) { options.folder = value; }}});
  if (options.quick) {
    options.runs = std::min<std::size_t>(options.runs, 4);
    options.images = 1000;
  }
  if (options.runs == 0 || options.at_once[0] == 0) throw std::invalid_argument{"0"};
  return options;
}

bool wanted(const Options& options, const std::string& workload) {
  return options.workloads.empty() || options.workloads.contains(workload);
}

// ---- one invocation ----------------------------------------------------------------------------

constexpr const char* kRequest = "7";

class Instance {
 public:
  Instance() = default;
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;
  virtual ~Instance() = default;

  /// What nobody waits for.
  virtual void prepare() {}
  /// What is timed.
  virtual std::string answer() = 0;
  /// Of the function, once it has answered.
  virtual pid_t pid() const = 0;
  /// Of icecore, which stands for it, if anything does.
  virtual pid_t tool() const { return 0; }
};

/// A command, which is the function or becomes it.
class Started final : public Instance {
 public:
  explicit Started(Command command) : command_(std::move(command)) {}
  ~Started() override {
    if (program_) program_->hang_up();
  }

  std::string answer() override {
    program_.emplace(command_, Errors::kept);
    return program_->ask(kRequest);
  }
  pid_t pid() const override { return is_icecore() ? child_of(program_->pid()) : program_->pid(); }
  pid_t tool() const override { return is_icecore() ? program_->pid() : 0; }

 private:
  bool is_icecore() const { return command_[0] == ICECORE_TOOL; }

  Command command_;
  std::optional<Program> program_;
};

/// As a runtime that links the library does it.
class Prepared final : public Instance {
 public:
  explicit Prepared(const icecore::Image& image) : image_(image) {}
  ~Prepared() override {
    if (!process_) return;
    process_->signal(SIGKILL);
    process_->wait();
  }

  void prepare() override {
    prepared_.emplace(icecore::prepare(
        image_, {.pids = icecore::Pids::in_namespace,
                 .standard_streams = {lines_.its_input(), lines_.its_output(), -1}}));
    lines_.begin();
  }
  std::string answer() override {
    process_.emplace(std::move(*prepared_).start());
    return lines_.ask(kRequest);
  }
  pid_t pid() const override { return process_->pid(); }

 private:
  const icecore::Image& image_;
  Lines lines_;
  std::optional<icecore::PreparedProcess> prepared_;
  std::optional<icecore::RestoredProcess> process_;
};

/// A program that has answered before.
class Running final : public Instance {
 public:
  explicit Running(Program& program) : program_(program) {}
  std::string answer() override { return program_.ask(kRequest); }
  pid_t pid() const override { return program_.pid(); }

 private:
  Program& program_;
};

// ---- what is measured --------------------------------------------------------------------------

struct Way {
  const char* name;
  const char* label;
  const char* base = nullptr;  ///< another way, and how far this may be from it
  const char* limit = nullptr;
  bool is_ratio = false;
};

constexpr Way kWays[] = {
    {"cold", "started cold"},
    {"cold_snapshot", "  and snapshotted by `run` (notify)", "cold", "1.15 x", true},
    {"guest", "started cold, with libicecore_guest"},
    {"guest_snapshot", "  and waiting for its snapshot (guest)", "guest", "1.15 x", true},
    {"restore", "`restore` of the image"},
    {"run", "`run` from a warm store", "restore", "5 ms more"},
    {"prepared", "prepared ahead", "running", "2 ms more"},
    {"running", "a program that runs already"},
};

struct Measured {
  std::vector<double> seconds;
  std::vector<double> memory;      ///< PSS of the function when it has answered
  std::vector<double> own_memory;  ///< and of icecore's processes that serve it
};

/// All invocations of one workload, so many at once.
class Measurement {
 public:
  Measurement(const std::string& module, std::size_t at_once, const Options& options)
      : module_(module), at_once_(at_once), options_(options) {
    fill_store();
    for (std::size_t i = 0; i < at_once; ++i) {
      running_.push_back(std::make_unique<Program>(function("none")));
      expected_ = running_.back()->ask(kRequest);
    }
  }

  void run() {
    const std::size_t rounds = (options_.runs + at_once_ - 1) / at_once_;
    for (std::size_t round = 0; round < rounds; ++round)
      for (const Way& way : kWays) {
        invoke(way);
        fs::remove_all(place_ / "others");
      }
  }

  const Measured& of(const std::string& way) const { return results_.at(way); }

 private:
  Command function(const std::string& ready) const {
    return {"/usr/bin/python3", script_, module_, ready};
  }

  Command run_from(const std::string& store, const std::string& key,
                   const std::string& ready) const {
    Command command = {ICECORE_TOOL, "run",    "--store", place_ / store, "--key",
                       key,          "--json", "--ready", ready,          "--"};
    const Command program = function(ready);
    command.insert(command.end(), program.begin(), program.end());
    return command;
  }

  /// The first time it is snapshotted; the second time it keeps its working set.
  void fill_store() {
    Program cold{run_from("store", "function", "notify"), Errors::kept};
    wait_until([&] { return cold.error_text().find("\"snapshot\":") != std::string::npos; },
               [&] { return "no snapshot: " + cold.error_text(); });
    cold.ask(kRequest);
    cold.hang_up();
    const auto images = icecore::Store::open(place_ / "store").list();
    image_ = images.at(0).image;
    opened_.emplace(icecore::Image::open(image_));

    Program restored{run_from("store", "function", "notify"), Errors::kept};
    restored.ask(kRequest);
    if (restored.error_text().find("\"restored\"") == std::string::npos)
      throw std::runtime_error{"not restored: " + restored.error_text()};
    restored.hang_up();
    wait_until([&] { return fs::exists(image_.native() + ".ws"); },
               [] { return std::string{"no working set was written"}; });
  }

  template <class Condition, class Otherwise>
  static void wait_until(const Condition& condition, const Otherwise& otherwise) {
    const auto begin = Clock::now();
    while (!condition()) {
      if (seconds_since(begin) > 60) throw std::runtime_error{otherwise()};
      std::this_thread::yield();
    }
  }

  std::unique_ptr<Instance> make(const std::string& way, std::size_t index) {
    const std::string key = std::to_string(index);
    if (way == "cold") return std::make_unique<Started>(function("notify"));
    if (way == "guest") return std::make_unique<Started>(function("guest"));
    if (way == "cold_snapshot") return std::make_unique<Started>(run_from("others", key, "notify"));
    if (way == "guest_snapshot") return std::make_unique<Started>(run_from("others", key, "guest"));
    if (way == "restore")
      return std::make_unique<Started>(Command{ICECORE_TOOL, "restore", image_});
    if (way == "run") return std::make_unique<Started>(run_from("store", "function", "notify"));
    if (way == "prepared") return std::make_unique<Prepared>(*opened_);
    return std::make_unique<Running>(*running_[index]);
  }

  void invoke(const Way& way) {
    std::vector<std::unique_ptr<Instance>> instances;
    for (std::size_t i = 0; i < at_once_; ++i) {
      instances.push_back(make(way.name, i));
      instances.back()->prepare();
    }
    if (options_.cold) drop_page_cache();

    Measured& measured = results_[way.name];
    std::barrier begin{static_cast<std::ptrdiff_t>(at_once_)};
    std::vector<std::future<double>> answers;
    for (const auto& instance : instances)
      answers.push_back(std::async(std::launch::async, [&] {
        begin.arrive_and_wait();
        std::string answer;
        const double seconds = timed([&] { answer = instance->answer(); });
        if (answer != expected_)
          throw std::runtime_error{"it answered " + answer + ", not " + expected_};
        return seconds;
      }));
    for (auto& answer : answers) answer.wait();
    for (auto& answer : answers) measured.seconds.push_back(answer.get());
    for (const auto& instance : instances) weigh(*instance, measured);
  }

  static void weigh(const Instance& instance, Measured& measured) {
    const pid_t pid = instance.pid();
    measured.memory.push_back(proportional_bytes(pid));
    double own = instance.tool() != 0 ? proportional_bytes(instance.tool()) : 0;
    for (const pid_t pager : test::pagers_of(pid)) own += proportional_bytes(pager);
    measured.own_memory.push_back(own);
  }

  std::string module_;
  std::size_t at_once_;
  const Options& options_;
  Workplace place_{options_.folder};
  std::string script_ = std::string{ICECORE_SOURCE_DIR} + "/tests/programs/function.py";
  fs::path image_;
  std::optional<icecore::Image> opened_;
  std::vector<std::unique_ptr<Program>> running_;
  std::string expected_;
  std::map<std::string, Measured> results_;
};

// ---- printing ----------------------------------------------------------------------------------

/// Against the way it is compared with: medians, and the fastest of each, which a busy machine
/// disturbs least.
std::string relation(const Way& way, const Measurement& measurement) {
  if (way.base == nullptr) return "";
  const std::vector<double>& here = measurement.of(way.name).seconds;
  const std::vector<double>& there = measurement.of(way.base).seconds;
  const auto relate = [&](double a, double b) {
    return way.is_ratio ? fmt::format("{:.2f} x", a / b) : fmt::format("{:+.2f} ms", (a - b) * 1e3);
  };
  return fmt::format("{}, least {} (at most {})",
                     relate(percentile(here, 50), percentile(there, 50)),
                     relate(summarize(here).min, summarize(there).min), way.limit);
}

void print(const std::string& module, std::size_t at_once, const Measurement& measurement,
           const Options& options) {
  if (!options.json)
    fmt::print("\n{:<42} {:>9} {:>9} {:>9} {:>10} {:>10}\n",
               fmt::format("python3 with {}, {} at once", module, at_once), "p50", "p99", "min",
               "PSS", "icecore's");
  for (const Way& way : kWays) {
    const Measured& measured = measurement.of(way.name);
    const double p50 = percentile(measured.seconds, 50), p99 = percentile(measured.seconds, 99),
                 min = summarize(measured.seconds).min;
    const double memory = percentile(measured.memory, 50),
                 own = percentile(measured.own_memory, 50);
    if (options.json)
      fmt::print(
          "{{\"bench\":\"coldstart\",\"workload\":\"{}\",\"way\":\"{}\",\"at_once\":{},"
          "\"cold\":{},\"runs\":{},\"p50_s\":{:.9g},\"p99_s\":{:.9g},\"min_s\":{:.9g},"
          "\"pss_bytes\":{:.0f},\"own_pss_bytes\":{:.0f}}}\n",
          module, way.name, at_once, options.cold, measured.seconds.size(), p50, p99, min, memory,
          own);
    else
      fmt::print("  {:<40} {:>9} {:>9} {:>9} {:>10} {:>10}   {}\n", way.label, human_time(p50),
                 human_time(p99), human_time(min), human_size(memory),
                 own > 0 ? human_size(own) : "", relation(way, measurement));
  }
  std::fflush(stdout);
}

// ---- look-up -----------------------------------------------------------------------------------

/// Images with nothing in them: a look-up does not open any.
class LargeStore {
 public:
  LargeStore(const fs::path& folder, std::size_t images) : store_(icecore::Store::open(folder)) {
    wanted_.started.command = {"/usr/bin/python3", "handler.py"};
    wanted_.started.dependencies = {
        icecore::depend_on("/usr/bin/python3"),
        icecore::depend_on(std::string{ICECORE_SOURCE_DIR} + "/tests/programs/function.py")};
    wanted_.worker_type = icecore::this_host().worker_type;
    const std::string entry = make_one();
    for (std::size_t i = 0; i < images; ++i) add(entry, key(i));
  }

  static std::string key(std::size_t i) { return fmt::format("function-{:05}", i); }

  /// Seconds; as a command does it, that opens the store for each.
  double look_up(std::size_t i) const {
    std::size_t found = 0;
    const double seconds =
        timed([&] { found = icecore::Store::open(store_.path()).find(key(i), wanted_).size(); });
    if (found != 1) throw std::runtime_error{"look-up found " + std::to_string(found)};
    return seconds;
  }

 private:
  /// The text of an entry, of which others are copies.
  std::string make_one() {
    auto place = store_.begin(kModel).value();
    Program program{{std::string{ICECORE_TARGET_DIR} + "/tiny"}};
    program.hear();
    run({ICECORE_TOOL, "snapshot", std::to_string(program.pid()), "-o", place.path(),
         "--no-fsync"});
    icecore::StoreEntry entry;
    entry.started = wanted_.started;
    entry.worker_type = wanted_.worker_type;
    if (!icecore::complete(entry.started.dependencies).empty())
      throw std::runtime_error{"a file changes"};
    place.commit(entry);
    std::ifstream file{place.path().native() + ".entry"};
    std::string text;
    std::getline(file, text);
    return text;
  }

  void add(std::string text, const std::string& key) {
    const fs::path image = store_.begin(key).value().path();
    text.replace(text.find(kModel), std::string{kModel}.size(), key);
    std::ofstream{image.native() + ".entry"} << text;
  }

  static constexpr const char* kModel = "function-model";

  icecore::Store store_;
  icecore::Wanted wanted_;
};

void measure_look_up(const Options& options) {
  const Workplace place{options.folder};
  const LargeStore store{place / "store", options.images};
  std::vector<double> seconds;
  for (std::size_t i = 0; i < options.runs; ++i) {
    if (options.cold) drop_page_cache();
    seconds.push_back(store.look_up(i * 7919 % options.images));
  }
  const double p50 = percentile(seconds, 50), p99 = percentile(seconds, 99);
  if (options.json)
    fmt::print(
        "{{\"bench\":\"coldstart\",\"workload\":\"look-up\",\"images\":{},\"cold\":{},\"runs\":{},"
        "\"p50_s\":{:.9g},\"p99_s\":{:.9g}}}\n",
        options.images, options.cold, options.runs, p50, p99);
  else
    fmt::print("\n{:<42} {:>9} {:>9}\n  {:<40} {:>9} {:>9}   (at most 1 ms)\n", "a store", "p50",
               "p99", fmt::format("look-up among {} images", options.images), human_time(p50),
               human_time(p99));
}

// ------------------------------------------------------------------------------------------------

/// The Python module is not installed where the bench is built.
void find_python_module() {
  const std::string source = ICECORE_SOURCE_DIR;
  ::setenv("PYTHONPATH", (source + "/python").c_str(), 1);
  ::setenv("ICECORE_GUEST_LIBRARY", ICECORE_GUEST, 1);
}

bool is_installed(const std::string& module) {
  try {
    run({"/usr/bin/python3", "-c", "import " + module});
    return true;
  } catch (const std::runtime_error&) {
    return false;
  }
}

int coldstart(const Options& options) {
  find_python_module();
  if (!options.json)
    fmt::print("{}, {} invocations each; page cache {}\n", ICECORE_TOOL, options.runs,
               options.cold ? "dropped before each" : "warm");
  bool all = true;
  const auto attempt = [&](const std::string& what, const auto& work) {
    try {
      work();
    } catch (const std::exception& error) {
      fmt::print(stderr, "\n{}: FAILED: {}\n", what, error.what());
      all = false;
    }
  };
  if (wanted(options, "look-up")) attempt("look-up", [&] { measure_look_up(options); });
  for (const std::string module : {"numpy", "torch"}) {
    if (!wanted(options, module)) continue;
    if (!is_installed(module)) {
      fmt::print(stderr, "\npython3 with {}: SKIPPED: not installed\n", module);
      continue;
    }
    for (const std::size_t at_once : options.at_once)
      attempt("python3 with " + module, [&] {
        Measurement measurement{module, at_once, options};
        measurement.run();
        print(module, at_once, measurement, options);
      });
  }
  return all ? 0 : 1;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  return bench::run_bench(argc, argv, bench::kUsage, [](const bench::Words& words) {
    return bench::coldstart(bench::parse(words));
  });
}
