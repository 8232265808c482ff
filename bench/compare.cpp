// SPDX-License-Identifier: Apache-2.0
//
// How long until a program answers when it comes from its image, against its own start, against
// CRIU, and against what the machine could do at best?  And how long does a snapshot hold it up?
//
// Everything is warm: programs and images lie in the page cache.  Times of commands are those of
// the whole command, from its start to its end, or to the first answer of what it restored.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "criu.hpp"
#include "limits.hpp"
#include "options.hpp"
#include "process.hpp"
#include "statistics.hpp"
#include "workloads.hpp"
#include "workplace.hpp"

namespace bench {
namespace {

namespace fs = std::filesystem;

// ---- options -----------------------------------------------------------------------------------

struct Options {
  std::size_t runs = 5;
  bool quick = false;
  bool json = false;
  std::set<std::string> workloads = {};  ///< empty: all
  std::string icecore = ICECORE_TOOL;
  std::string criu = "criu";
  fs::path folder = fs::temp_directory_path();
};

constexpr const char* kUsage =
    "compare [--runs N] [--quick] [--json] [--workload NAME]... [--icecore PATH] [--criu PATH] "
    "[--folder PATH]\n";

Options parse(const Words& words) {
  Options options;
  parse_options(words, {{"--quick", &options.quick}, {"--json", &options.json}},
                {{"--runs", [&](const std::string& value) { options.runs = std::stoul(value); }},
                 {"--workload", [&](const std::string& value) { options.workloads.insert(value); }},
                 {"--icecore", [&](const std::string& value) { options.icecore = value; }},
                 {"--criu", [&](const std::string& value) { options.criu = value; }},
                 {"--folder", [&](const std::string& value) { options.folder = value; }}});
  if (options.quick) options.runs = std::min<std::size_t>(options.runs, 2);
  if (options.runs == 0) throw std::invalid_argument{"--runs 0"};
  return options;
}

// ---- workloads ---------------------------------------------------------------------------------

std::vector<Workload> workloads(bool quick, const fs::path& folder) {
  const std::string mebibytes = quick ? "64" : "1024", mappings = quick ? "500" : "5000";
  std::vector<Workload> all = {
      {"tiny", "tiny program", {target("tiny")}},
      {"memory",
       mebibytes + " MiB of random anonymous memory",
       {target("large_memory"), mebibytes},
       "sample?"},
      {"threads", "200 threads", {target("many_threads"), "200"}, "check?"},
      {"threads1000", "1,000 threads", {target("many_threads"), "1000"}, "check?"},
      {"mappings", mappings + " mappings", {target("many_mappings"), mappings}, "check?"},
  };
  std::ranges::move(real_programs(quick, folder), std::back_inserter(all));
  return all;
}

// ---- what is measured --------------------------------------------------------------------------

struct Measure {
  const char* name;                ///< in JSON
  const char* label;               ///< in the table
  const char* base = nullptr;      ///< another measure of the same run
  const char* relation = nullptr;  ///< how the ratio to it reads; "{}" is the number
  bool inverse = false;            ///< base / this, instead of this / base
};

constexpr Measure kMeasures[] = {
    {"cold_start", "cold start until it answers"},
    {"snapshot", "snapshot --no-fsync, command", "read_write", "{} x its limit"},
    {"frozen", "  of which the program stands still", "read_write", "{} x the limit"},
    {"freeze", "  of which until all threads have stopped"},
    {"snapshot_fsync", "snapshot, command", "read_write_fsync", "{} x its limit"},
    {"read_write", "  limit: process_vm_readv + pwrite"},
    {"read_write_fsync", "  limit: the same and fsync"},
    {"restore", "restore until it answers", "cold_start", "{} x sooner than a cold start", true},
    {"restore_eager", "restore --eager until it answers", "cold_start",
     "{} x sooner than a cold start", true},
    {"restore_fill", "  of which filling memory", "fill_1", "{} x its limit"},
    {"fill_1", "  limit: UFFDIO_COPY, one thread"},
    {"fill_2", "  limit: UFFDIO_COPY, two threads"},
    {"criu_dump", "CRIU dump, command", "snapshot", "{} x icecore"},
    {"criu_restore", "CRIU restore until it answers", "restore", "{} x icecore"},
};

/// The measurements of one workload, in seconds, by run.
class Results {
 public:
  void add(const std::string& measure, double seconds) { values_[measure].push_back(seconds); }

  std::optional<Summary> of(const std::string& measure) const {
    const auto found = values_.find(measure);
    if (found == values_.end()) return std::nullopt;
    return summarize(found->second);
  }

  /// Of the values of the same runs.
  std::optional<Summary> ratio(const Measure& measure) const {
    if (measure.base == nullptr) return std::nullopt;
    const auto above = values_.find(measure.inverse ? measure.base : measure.name);
    const auto below = values_.find(measure.inverse ? measure.name : measure.base);
    if (above == values_.end() || below == values_.end()) return std::nullopt;
    std::vector<double> ratios;
    const std::size_t runs = std::min(above->second.size(), below->second.size());
    for (std::size_t run = 0; run < runs; ++run)
      ratios.push_back(above->second[run] / below->second[run]);
    return summarize(ratios);
  }

  double image_bytes = 0;

 private:
  std::map<std::string, std::vector<double>> values_;
};

// ---- measuring ---------------------------------------------------------------------------------

double microseconds_in(const std::string& json, const std::string& field) {
  return number_in(json, field) * 1e-6;
}

class Measurement {
 public:
  Measurement(const Workload& workload, const Options& options, const Criu& criu, Results& results)
      : workload_(workload), options_(options), criu_(criu), results_(results) {}

  void run_once() {
    std::unique_ptr<Program> program = start_cold();
    const std::size_t stored_bytes = take_snapshots(*program);
    measure_copy_limit(program->pid(), stored_bytes);
    program->kill();
    program.reset();
    measure_restore();
    measure_fill_limit(stored_bytes);
    if (criu_.works()) measure_criu();
  }

 private:
  std::unique_ptr<Program> start_cold() {
    std::unique_ptr<Program> program;
    const double seconds = timed([&] {
      program = std::make_unique<Program>(workload_.command);
      await_ready(*program, workload_);
      answer_ = ask(*program, workload_);
    });
    results_.add("cold_start", seconds);
    return program;
  }

  /// Returns how many bytes of memory the image holds.
  std::size_t take_snapshots(Program& program) {
    const std::string pid = std::to_string(program.pid());
    const Command command = {options_.icecore, "snapshot", pid, "-o", image(), "--json"};
    await_no_connection(workload_);
    results_.add("snapshot_fsync", timed([&] { run(command); }));
    expect_answer(program);

    fs::remove(image());  // else the next one would pay for freeing it
    Command without_fsync = command;
    without_fsync.push_back("--no-fsync");
    std::string report;
    await_no_connection(workload_);
    results_.add("snapshot", timed([&] { report = run(without_fsync); }));
    results_.add("frozen", microseconds_in(report, "frozen_us"));
    results_.add("freeze", microseconds_in(report, "freeze_us"));
    results_.image_bytes = number_in(report, "image_bytes");
    expect_answer(program);
    return static_cast<std::size_t>(number_in(report, "stored_pages")) * kPageBytes;
  }

  void measure_copy_limit(pid_t pid, std::size_t bytes) {
    const std::vector<Run> runs = present_runs(pid, bytes);
    const fs::path copy = workplace_ / "copy";
    results_.add("read_write_fsync", copy_out(pid, runs, copy, true));
    fs::remove(copy);
    results_.add("read_write", copy_out(pid, runs, copy, false));
    fs::remove(copy);
  }

  /// As it is by default, without a working set of an earlier one; and with all memory first.
  void measure_restore() {
    measure_restore("restore", "--no-record");
    const std::string report = measure_restore("restore_eager", "--eager");
    results_.add("restore_fill", microseconds_in(report, "fill_us"));
  }

  std::string measure_restore(const std::string& measure, const std::string& option) {
    std::optional<Program> restored;
    const double seconds = timed([&] {
      restored.emplace(Command{options_.icecore, "restore", image(), "--json", option},
                       Errors::kept);
      expect_answer(*restored);
    });
    results_.add(measure, seconds);
    end_restored(*restored, workload_);  // and only then the report is sure to be there
    return restored->error_text();
  }

  void measure_fill_limit(std::size_t bytes) {
    results_.add("fill_1", fill_fresh_memory(image(), bytes, 1));
    results_.add("fill_2", fill_fresh_memory(image(), bytes, 2));
  }

  void measure_criu() {
    const fs::path folder = workplace_ / "criu";
    fs::create_directory(folder);
    std::optional<Program> program{workload_.command};
    await_ready(*program, workload_);
    answer_ = ask(*program, workload_);
    await_no_connection(workload_);
    const Criu::Streams streams = Criu::streams_of(program->pid());
    results_.add("criu_dump", criu_.dump(program->pid(), folder));
    program->kill();
    program.reset();

    std::optional<Program> restored;
    results_.add("criu_restore", timed([&] {
                   restored.emplace(criu_.restore_command(folder, streams), Errors::kept);
                   expect_answer(*restored);
                 }));
    end_restored(*restored, workload_);
    fs::remove_all(folder);
  }

  void expect_answer(Program& program) const {
    const std::string now = ask(program, workload_);
    if (now != answer_) throw std::runtime_error{"it answered " + now + ", not " + answer_};
  }

  fs::path image() const { return workplace_ / "image"; }

  const Workload& workload_;
  const Options& options_;
  const Criu& criu_;
  Results& results_;
  Workplace workplace_{options_.folder};
  std::string answer_;
};

// ---- printing ----------------------------------------------------------------------------------

void print_table(const Workload& workload, const Results& results, const Criu& criu) {
  fmt::print("\n{:<44} {:>10} {:>10} {:>10}\n", workload.title, "median", "min", "max");
  for (const Measure& measure : kMeasures) {
    if (const auto time = results.of(measure.name)) {
      fmt::print("  {:<42} {:>10} {:>10} {:>10}", measure.label, human_time(time->median),
                 human_time(time->min), human_time(time->max));
      if (const auto ratio = results.ratio(measure))
        fmt::print("   {}", fmt::format(fmt::runtime(measure.relation),
                                        fmt::format("{:.2f}", ratio->median)));
      fmt::print("\n");
    } else if (std::string{measure.name}.starts_with("criu") && !criu.works()) {
      fmt::print("  {:<42} {:>10}\n", measure.label, "not available");
    }
  }
  fmt::print("  {:<42} {:>10}\n", "image", human_size(results.image_bytes));
}

std::string json_of(const Summary& summary, const char* unit) {
  return fmt::format("\"median{0}\":{1:.9g},\"min{0}\":{2:.9g},\"max{0}\":{3:.9g}", unit,
                     summary.median, summary.min, summary.max);
}

/// One object on each line.
void print_json(const Workload& workload, const Results& results, std::size_t runs) {
  for (const Measure& measure : kMeasures) {
    const auto time = results.of(measure.name);
    if (!time) continue;
    std::string line = fmt::format(
        "{{\"bench\":\"compare\",\"workload\":\"{}\",\"measure\":\"{}\","
        "\"runs\":{},\"image_bytes\":{:.0f},{}",
        workload.name, measure.name, runs, results.image_bytes, json_of(*time, "_s"));
    if (const auto ratio = results.ratio(measure))
      line += fmt::format(",\"ratio\":\"{}\",{}",
                          measure.inverse ? fmt::format("{}/{}", measure.base, measure.name)
                                          : fmt::format("{}/{}", measure.name, measure.base),
                          json_of(*ratio, "_ratio"));
    fmt::print("{}}}\n", line);
  }
}

void print_head(const Options& options, const Criu& criu) {
  fmt::print("{}, {} run(s) each; page cache warm; images in {}\n", options.icecore, options.runs,
             options.folder.string());
  if (!criu.works()) fmt::print("CRIU not available: {}\n", criu.reason());
}

/// False when the workload cannot run here; the reason is printed.
bool measure(const Workload& workload, const Options& options, const Criu& criu) {
  try {
    build(workload);
    Results results;
    for (std::size_t run = 0; run < options.runs; ++run)
      Measurement{workload, options, criu, results}.run_once();
    if (options.json)
      print_json(workload, results, options.runs);
    else
      print_table(workload, results, criu);
    std::fflush(stdout);
    return true;
  } catch (const std::exception& error) {
    const bool skipped = std::string{error.what()}.starts_with("skip: ");
    fmt::print(stderr, "\n{}: {}: {}\n", workload.title, skipped ? "SKIPPED" : "FAILED",
               error.what());
    return skipped;
  }
}

int compare(const Options& options) {
  const Criu criu{options.criu};
  if (!options.json) print_head(options, criu);
  bool all = true;
  const Workplace folder{options.folder};
  for (const Workload& workload : workloads(options.quick, folder / ""))
    if (options.workloads.empty() || options.workloads.contains(workload.name))
      all = measure(workload, options, criu) && all;
  return all ? 0 : 1;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  return bench::run_bench(argc, argv, bench::kUsage, [](const bench::Words& words) {
    return bench::compare(bench::parse(words));
  });
}
