// SPDX-License-Identifier: Apache-2.0
//
// How soon does a process answer, and how soon has it touched what it needs, when its memory comes
// as it touches it?  Eager, lazy for the first time, and lazy with the working set of an earlier
// restore, side by side, with the page cache warm or dropped; beside them the program started anew,
// CRIU where there is one, and, as the limit, a process whose memory is simply there.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <sstream>
#include <thread>

#include "criu.hpp"
#include "limits.hpp"
#include "observe.hpp"
#include "options.hpp"
#include "process.hpp"
#include "statistics.hpp"
#include "support/pagers.hpp"
#include "workloads.hpp"
#include "workplace.hpp"

namespace bench {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::size_t runs = 5;
  bool quick = false;
  bool json = false;
  bool cold = false;          ///< drop the page cache before every restore
  std::string workload = {};  ///< only those with this in their title
  fs::path plot = {};
  std::string criu = "criu";
  fs::path folder = fs::temp_directory_path();
};

constexpr const char* kUsage =
    "lazy [--runs N] [--quick] [--json] [--cold] [--workload TEXT] [--plot FILE.svg] "
    "[--criu PATH] [--folder PATH]\n";

Options parse(const Words& words) {
  Options options;
  parse_options(words,
                {{"--quick", &options.quick}, {"--json", &options.json}, {"--cold", &options.cold}},
                {{"--runs", [&](const std::string& value) { options.runs = std::stoul(value); }},
                 {"--workload", [&](const std::string& value) { options.workload = value; }},
                 {"--criu", [&](const std::string& value) { options.criu = value; }},
                 {"--plot", [&](const std::string& value) { options.plot = value; }},
                 {"--folder", [&](const std::string& value) { options.folder = value; }}});
  if (options.quick) options.runs = std::min<std::size_t>(options.runs, 2);
  if (options.runs == 0) throw std::invalid_argument{"--runs 0"};
  return options;
}

// ---- workloads ---------------------------------------------------------------------------------

std::vector<Workload> workloads(bool quick, const fs::path& folder) {
  std::vector<Workload> all;
  const std::vector<std::size_t> sizes =
      quick ? std::vector<std::size_t>{64} : std::vector<std::size_t>{1024, 4096};
  for (const std::size_t mebibytes : sizes)
    for (const std::size_t percent : {1U, 10U, 100U})
      for (const char* how : {"read", "write"}) {
        if ((quick || mebibytes > 1024) && percent == 100) continue;
        all.push_back(
            {.name = fmt::format("memory {} {} {}", mebibytes, percent, how),
             .title = fmt::format("{} MiB, {} % {} at random", mebibytes, percent, how),
             .command = {target("large_memory"), std::to_string(mebibytes)},
             .question = fmt::format("touch {} {}", mebibytes * 256 * percent / 100, how)});
      }
  std::ranges::move(real_programs(quick, folder), std::back_inserter(all));
  return all;
}

/// The memory target says how long it took; the others answer with something else.
bool is_memory(const Workload& workload) { return workload.question.starts_with("touch"); }

// ---- what is measured --------------------------------------------------------------------------

struct Mode {
  const char* name;
  const char* label;
  Command options;
};
constexpr const char* kStart = "start";
constexpr const char* kCriu = "criu";
constexpr const char* kCriuLazy = "criu_lazy";
const Mode kModes[] = {
    {"eager", "eager", {"--eager"}},
    {"lazy_first", "lazy, first time", {"--lazy", "--no-record", "--fill", "never"}},
    {"lazy", "lazy with working set", {"--lazy", "--no-record", "--fill", "never"}},
    {"lazy_fill", "  and filled in the background", {"--lazy", "--no-record"}},
};

struct Measured {
  std::vector<double> running;   ///< from the command's start until the process runs
  std::vector<double> answered;  ///< until it has done the work and answered
  std::vector<double> work;      ///< of which the work itself, by its own clock (memory only)
  std::vector<double> resident;  ///< bytes, at the answer
  std::vector<double> cpu;       ///< seconds of it and of the pager, at the answer
};

double cpu_seconds(pid_t pid) {
  std::ifstream file{fmt::format("/proc/{}/stat", pid)};
  std::string text;
  std::getline(file, text);  // it may have ended: then there is none
  if (text.empty()) return 0;
  std::istringstream fields{text.substr(text.rfind(')') + 2)};
  std::string skipped;
  for (int field = 3; field < 14; ++field) fields >> skipped;
  double user = 0, system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

/// What stands beside icecore.
const Mode kOthers[] = {
    {kStart, "started anew", {}},
    {kCriu, "CRIU", {}},
    {kCriuLazy, "CRIU --lazy-pages", {}},
};

/// Resident memory over time, from the start of a restore.
struct Curve {
  std::vector<std::pair<double, double>> samples;  ///< seconds, bytes
  std::pair<double, double> answer;
};

class Measurement {
 public:
  Measurement(const Workload& workload, const Options& options, const Criu& criu)
      : workload_(workload), options_(options), criu_(criu) {}

  void prepare() {
    Program program{workload_.command};
    await_ready(program, workload_);
    for (std::size_t run = 0; run < options_.runs; ++run)
      resident_work_.push_back(work_of(expected_ = ask(program, workload_)));
    await_no_connection(workload_);
    run_command({"snapshot", std::to_string(program.pid()), "-o", image(), "--no-fsync"});
    if (!criu_.works()) return;
    fs::create_directory(criu_images());
    streams_ = Criu::streams_of(program.pid());
    criu_.dump(program.pid(), criu_images());
  }

  void measure_start() {
    if (options_.cold) drop_page_cache();
    const auto begin = Clock::now();
    Program program{workload_.command};
    await_ready(program, workload_);
    note(kStart, begin, program, program.pid());
  }

  /// The server of pages is not counted: it could be started before.
  void measure_criu(const char* mode) {
    if (!criu_.works()) return;
    const bool lazily = mode == kCriuLazy;
    if (options_.cold) drop_page_cache();
    const auto server = lazily ? criu_.serve_pages(criu_images()) : nullptr;
    const auto begin = Clock::now();
    Program restored{criu_.restore_command(criu_images(), streams_, lazily), Errors::kept};
    note(mode, begin, restored, 0);
    end_restored(restored, workload_);
  }

  void measure(const Mode& mode, Curve* curve = nullptr) {
    const bool with_set =
        std::string{mode.name} != "lazy_first" && std::string{mode.name} != "eager";
    if (with_set && !fs::exists(working_set())) record();
    if (!with_set) fs::remove(working_set());
    if (options_.cold) drop_page_cache();

    const auto begin = Clock::now();
    Command command = {ICECORE_TOOL, "restore", image(), "--json"};
    command.insert(command.end(), mode.options.begin(), mode.options.end());
    Program restored{command, Errors::kept};
    std::jthread sampler;
    if (curve != nullptr)
      sampler = std::jthread{[&, begin](const std::stop_token& stop) {
        pid_t pid = 0;
        while (!stop.stop_requested()) {
          if (pid == 0) pid = child_of(restored.pid());
          if (pid != 0) curve->samples.emplace_back(seconds_since(begin), resident_bytes(pid));
          std::this_thread::sleep_for(std::chrono::milliseconds{1});
        }
      }};
    Measured& measured = note(mode.name, begin, restored, 0);
    if (curve != nullptr) curve->answer = {measured.answered.back(), measured.resident.back()};
    if (curve != nullptr) std::this_thread::sleep_for(std::chrono::milliseconds{400});
    if (sampler.joinable()) sampler.request_stop(), sampler.join();
    end_restored(restored, workload_);
    measured.running.push_back(number_in(restored.error_text(), "total_us") * 1e-6);
  }

  /// What a cold restore with a working set cannot do without.
  void measure_reading() {
    if (options_.cold && fs::exists(working_set()))
      reading_.push_back(read_directly(working_set()));
  }

  const std::map<std::string, Measured>& results() const { return results_; }
  const std::vector<double>& reading() const { return reading_; }
  Summary resident_work() const { return summarize(resident_work_); }

 private:
  /// Asks the program, which is `pid`, or else what `program` restored.
  Measured& note(const char* mode, Clock::time_point begin, Program& program, pid_t pid) {
    const std::string answer = ask(program, workload_);
    Measured& measured = results_[mode];
    measured.answered.push_back(seconds_since(begin));
    const bool is_restored = pid == 0;
    if (is_restored && !is_memory(workload_) && answer != expected_)
      throw std::runtime_error{"it answered " + answer + ", not " + expected_};
    measured.work.push_back(work_of(answer));
    if (is_restored) pid = await_child_of(program.pid());
    measured.resident.push_back(resident_bytes(pid));
    measured.cpu.push_back(cpu_seconds(pid) + pager_cpu_seconds(pid));
    return measured;
  }

  fs::path criu_images() const { return place_ / "criu"; }
  fs::path image() const { return place_ / "image"; }
  fs::path working_set() const { return place_ / "image.ws"; }

  double work_of(const std::string& answer) const {
    return is_memory(workload_) ? std::stod(answer) * 1e-6 : 0;
  }

  static void run_command(Command command) {
    command.insert(command.begin(), ICECORE_TOOL);
    run(command);
  }

  static double pager_cpu_seconds(pid_t served) {
    double seconds = 0;
    for (const pid_t pager : test::pagers_of(served)) seconds += cpu_seconds(pager);
    return seconds;
  }

  /// Restores once so that the working set is kept; that is not measured.
  void record() {
    Program restored{{ICECORE_TOOL, "restore", image(), "--lazy", "--record"}};
    ask(restored, workload_);
    ::kill(await_child_of(restored.pid()), SIGKILL);  // what it does at its end is not wanted
    restored.hang_up();
    const auto begin = Clock::now();
    while (!fs::exists(working_set()))
      if (seconds_since(begin) > 60) throw std::runtime_error{"no working set was written"};
  }

  const Workload& workload_;
  const Options& options_;
  const Criu& criu_;
  Criu::Streams streams_;
  std::string expected_;
  Workplace place_{options_.folder};
  std::vector<double> resident_work_, reading_;
  std::map<std::string, Measured> results_;
};

// ---- printing ----------------------------------------------------------------------------------

void print(const Workload& workload, const Measurement& measurement, const Options& options) {
  const auto& results = measurement.results();
  const double eager = summarize(results.at("eager").answered).median;
  const bool memory = is_memory(workload);
  if (options.json) {
    if (!measurement.reading().empty())
      fmt::print(
          "{{\"bench\":\"lazy\",\"workload\":\"{}\",\"mode\":\"read_directly\","
          "\"cold\":true,\"runs\":{},\"median_s\":{:.9g}}}\n",
          workload.title, options.runs, summarize(measurement.reading()).median);
    for (const auto& [name, measured] : results) {
      const Summary answered = summarize(measured.answered);
      fmt::print(
          "{{\"bench\":\"lazy\",\"workload\":\"{}\",\"mode\":\"{}\",\"cold\":{},\"runs\":{},"
          "{}\"median_s\":{:.9g},\"min_s\":{:.9g},\"max_s\":{:.9g},"
          "\"work_s\":{:.9g},\"resident_bytes\":{:.0f},\"cpu_s\":{:.9g}}}\n",
          workload.title, name, options.cold, options.runs,
          measured.running.empty()
              ? ""
              : fmt::format("\"running_s\":{:.9g},", summarize(measured.running).median),
          answered.median, answered.min, answered.max, summarize(measured.work).median,
          summarize(measured.resident).median, summarize(measured.cpu).median);
    }
    return;
  }
  fmt::print("\n{:<34} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>7}\n", workload.title, "runs after",
             "answers", "min", "max", "work", "resident", "CPU s");
  const auto line = [&](const Mode& mode) -> std::optional<double> {
    if (!results.contains(mode.name)) return std::nullopt;
    const Measured& measured = results.at(mode.name);
    const Summary answered = summarize(measured.answered);
    fmt::print("  {:<32} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>7.2f}", mode.label,
               measured.running.empty() ? "" : human_time(summarize(measured.running).median),
               human_time(answered.median), human_time(answered.min), human_time(answered.max),
               memory ? human_time(summarize(measured.work).median) : "",
               human_size(summarize(measured.resident).median), summarize(measured.cpu).median);
    return answered.median;
  };
  for (const Mode& mode : kModes) {
    const double answered = *line(mode);
    if (std::string{mode.name} != "eager")
      fmt::print("   {:.1f} x sooner than eager", eager / answered);
    fmt::print("\n");
  }
  const double lazy = summarize(results.at("lazy").answered).median;
  for (const Mode& other : kOthers)
    if (const auto answered = line(other))
      fmt::print("   {:.1f} x lazy with working set\n", *answered / lazy);
  if (!measurement.reading().empty()) {
    const Summary read = summarize(measurement.reading());
    fmt::print("  {:<32} {:>9} {:>9} {:>9} {:>9}   {:.1f} x of it is lazy with working set\n",
               "reading the working set, O_DIRECT", "", human_time(read.median),
               human_time(read.min), human_time(read.max), lazy / read.median);
  }
  if (memory)
    fmt::print("  {:<32} {:>49}\n", "the work, memory simply there",
               human_time(measurement.resident_work().median));
}

/// Draws resident memory over time with gnuplot.
void draw(const std::map<std::string, Curve>& curves, const std::string& title,
          const fs::path& picture) {
  fs::path data = picture;
  data += ".dat";
  std::ofstream out{data};
  std::string plot;
  int index = 0;
  for (const Mode& mode : kModes) {
    out << "# " << mode.label << "\n";
    const Curve& curve = curves.at(mode.name);
    for (const auto& [time, bytes] : curve.samples)
      out << time * 1e3 << " " << bytes / (1 << 20) << "\n";
    out << "\n\n" << curve.answer.first * 1e3 << " " << curve.answer.second / (1 << 20) << "\n\n\n";
    plot += fmt::format(
        "{0}'{1}' index {2} with lines linewidth 2 linecolor {3} title '{4}', "
        "'{1}' index {5} with points pointtype 7 linecolor {3} notitle",
        index == 0 ? "plot " : ", ", data.string(), index, index / 2 + 1, mode.label, index + 1);
    index += 2;
  }
  out.close();
  run({"gnuplot", "-e",
       fmt::format("set terminal svg size 800,400 background 'white'; set output '{}'; "
                   "set title '{}'; set xlabel 'ms since the restore began'; "
                   "set ylabel 'resident MiB (dots: it has answered)'; set xrange [0:400]; "
                   "set key at graph 0.98, graph 0.6; {}",
                   picture.string(), title, plot)});
  fs::remove(data);
}

// ---- single faults -----------------------------------------------------------------------------

/// How long one fault takes that nothing has foreseen, beside the bare round trip of the kernel.
void single_faults(const Options& options) {
  constexpr std::size_t kFaults = 1000;
  const Workplace place{options.folder};
  const std::string image = place / "image";
  {
    Program program{{std::string{ICECORE_TARGET_DIR} + "/large_memory", "128"}};
    if (const std::string word = program.hear(); word != "ready") throw std::runtime_error{word};
    run({ICECORE_TOOL, "snapshot", std::to_string(program.pid()), "-o", image, "--no-fsync",
         "--kill"});
  }
  if (!options.json)
    fmt::print("\n{:<34} {:>9} {:>9} {:>9} {:>27}\n", "a single fault", "p50", "p99", "max",
               "(medians of the runs)");
  for (const int pause_us : {0, 1000}) {
    std::map<std::string, std::vector<FaultTimes>> times;
    for (std::size_t i = 0; i < options.runs; ++i) {
      Program restored{
          {ICECORE_TOOL, "restore", image, "--lazy", "--no-record", "--fill", "never"}};
      std::istringstream answer{restored.ask(fmt::format("faults {} {}", kFaults, pause_us))};
      FaultTimes ours;
      answer >> ours.p50 >> ours.p99 >> ours.max;
      times["icecore"].push_back(ours);
      times["limit"].push_back(bare_faults(kFaults, std::chrono::microseconds{pause_us}));
      restored.hang_up();
    }
    const auto median = [&](const std::string& who, double FaultTimes::*which) {
      std::vector<double> values;
      for (const FaultTimes& time : times[who]) values.push_back(time.*which);
      return summarize(values).median * 1e-9;
    };
    const double ratio = median("icecore", &FaultTimes::p50) / median("limit", &FaultTimes::p50);
    for (const auto& [who, label] :
         {std::pair{"icecore", "  icecore"}, std::pair{"limit", "  poll, read, UFFDIO_COPY"}}) {
      const double p50 = median(who, &FaultTimes::p50), p99 = median(who, &FaultTimes::p99),
                   max = median(who, &FaultTimes::max);
      if (options.json)
        fmt::print(
            "{{\"bench\":\"lazy\",\"workload\":\"single fault\",\"mode\":\"{}\",\"pause_us\":{},"
            "\"runs\":{},\"p50_s\":{:.9g},\"p99_s\":{:.9g},\"max_s\":{:.9g}}}\n",
            who, pause_us, options.runs, p50, p99, max);
      else
        fmt::print(
            "{:<34} {:>9} {:>9} {:>9}\n",
            fmt::format("{}, {}", label, pause_us == 0 ? "one after the other" : "one every ms"),
            human_time(p50), human_time(p99), human_time(max));
    }
    if (!options.json) fmt::print("    {:.2f} x the round trip\n", ratio);
  }
}

/// Faults of many threads, which wait in a queue.
void fault_storms(const Options& options) {
  constexpr std::size_t kThreads = 16, kEach = 100;
  const Workplace place{options.folder};
  if (!options.json)
    fmt::print("\n{:<34} {:>9} {:>9} {:>9}\n", fmt::format("{} threads at once, a page", kThreads),
               "median", "min", "max");
  for (const std::string encoding : {"raw", "zstd"}) {
    const std::string image = place / encoding;
    {
      Program program{{std::string{ICECORE_TARGET_DIR} + "/large_memory", "128"}};
      if (const std::string word = program.hear(); word != "ready") throw std::runtime_error{word};
      run({ICECORE_TOOL, "snapshot", std::to_string(program.pid()), "-o", image, "--compress",
           encoding, "--no-fsync", "--kill"});
    }
    std::vector<double> ours, limit;
    for (std::size_t i = 0; i < options.runs; ++i) {
      Program restored{
          {ICECORE_TOOL, "restore", image, "--lazy", "--no-record", "--fill", "never"}};
      ours.push_back(std::stod(restored.ask(fmt::format("storm {} {}", kThreads, kEach))) * 1e-9);
      limit.push_back(bare_storm(kThreads, kEach) * 1e-9);
      restored.hang_up();
    }
    for (const auto& [label, times] :
         {std::pair{fmt::format("  icecore, {}", encoding), summarize(ours)},
          std::pair{std::string{"  poll, read, UFFDIO_COPY"}, summarize(limit)}}) {
      if (options.json)
        fmt::print(
            "{{\"bench\":\"lazy\",\"workload\":\"storm of faults\",\"mode\":\"{}\","
            "\"threads\":{},\"runs\":{},\"page_s\":{:.9g}}}\n",
            label.substr(2), kThreads, options.runs, times.median);
      else
        fmt::print("{:<34} {:>9} {:>9} {:>9}\n", label, human_time(times.median),
                   human_time(times.min), human_time(times.max));
    }
    if (!options.json)
      fmt::print("    {:.2f} x one that only answers\n",
                 summarize(ours).median / summarize(limit).median);
  }
}

int lazy(const Options& options) {
  bool all = true;
  if (!options.json)
    fmt::print("{}, {} run(s) each; page cache {}\n", ICECORE_TOOL, options.runs,
               options.cold ? "dropped before each restore" : "warm");
  const Criu criu{options.criu};
  if (!options.json && !criu.works()) fmt::print("CRIU not available: {}\n", criu.reason());
  if (std::string{"a single fault"}.find(options.workload) != std::string::npos)
    single_faults(options);
  if (std::string{"threads at once"}.find(options.workload) != std::string::npos)
    fault_storms(options);
  const Workplace folder{options.folder};
  for (const Workload& workload : workloads(options.quick, folder / "")) {
    if (workload.title.find(options.workload) == std::string::npos) continue;
    try {
      build(workload);
      Measurement measurement{workload, options, criu};
      measurement.prepare();
      for (std::size_t run = 0; run < options.runs; ++run) {
        for (const Mode& mode : kModes) measurement.measure(mode);
        measurement.measure_reading();
        measurement.measure_start();
        for (const char* mode : {kCriu, kCriuLazy}) measurement.measure_criu(mode);
      }
      print(workload, measurement, options);
      if (!options.plot.empty() && workload.title.starts_with("python3")) {
        std::map<std::string, Curve> curves;
        for (const Mode& mode : kModes) measurement.measure(mode, &curves[mode.name]);
        draw(curves, workload.title, options.plot);
      }
    } catch (const std::exception& error) {
      const bool skipped = std::string{error.what()}.starts_with("skip: ");
      fmt::print(stderr, "\n{}: {}: {}\n", workload.title, skipped ? "SKIPPED" : "FAILED",
                 error.what());
      all = all && skipped;
    }
    std::fflush(stdout);
  }
  return all ? 0 : 1;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  return bench::run_bench(argc, argv, bench::kUsage, [](const bench::Words& words) {
    return bench::lazy(bench::parse(words));
  });
}
