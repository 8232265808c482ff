// SPDX-License-Identifier: Apache-2.0
//
// icecore snapshot: a running process into a file.
#include <fmt/format.h>
#include <icecore/snapshot.hpp>

#include <charconv>
#include <climits>
#include <map>
#include <optional>
#include <string_view>

#include "command.hpp"
#include "format.hpp"
#include "json/json.hpp"
#include "progress_line.hpp"
#include "report.hpp"
#include "restore_options.hpp"
#include "signals.hpp"

namespace icecore::tool {
namespace {

constexpr int kSmallestLevel = -7;
constexpr int kLargestLevel = 19;

struct Compression {
  Encoding encoding;
  std::optional<int> level;
};

std::optional<Compression> parse_compression(std::string_view text) {
  if (text == "raw") return Compression{Encoding::raw, std::nullopt};
  if (text == "zstd") return Compression{Encoding::zstd, std::nullopt};
  if (!text.starts_with("zstd:")) return std::nullopt;
  text.remove_prefix(5);
  int level = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), level);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  if (level < kSmallestLevel || level > kLargestLevel) return std::nullopt;
  return Compression{Encoding::zstd, level};
}

std::string check_compression(const std::string& text) {
  if (parse_compression(text)) return {};
  return fmt::format("{} is not raw, zstd or zstd:LEVEL with a level from {} to {}", text,
                     kSmallestLevel, kLargestLevel);
}

class Snapshot final : public Invocation {
 public:
  explicit Snapshot(CLI::App& app) {
    app.add_option("PID", pid_, "The process")
        ->option_text(" ")
        ->required()
        ->check(CLI::Range(1, INT_MAX));
    app.add_option("-o,--output", image_, "The file to write; replaced if it exists")
        ->option_text("IMAGE")
        ->required();
    app.add_flag("--kill", kill_, "Kill the process once the image is on disk");
    app.add_option("--compress", compression_,
                   "How to store memory: raw (the default) restores fastest, zstd is smaller; "
                   "LEVEL from -7 (fastest) to 19 (smallest)")
        ->option_text("raw|zstd[:LEVEL]")
        ->check(check_compression);
    app.add_option("--gpu", gpu_,
                   "A process that uses CUDA: its device memory is saved too (checkpoint, the "
                   "default), or it is refused (none)")
        ->option_text("none|checkpoint")
        ->transform(CLI::CheckedTransformer(
            std::map<std::string, GpuPolicy>{{"none", GpuPolicy::none},
                                             {"checkpoint", GpuPolicy::checkpoint}},
            CLI::ignore_case));
    app.add_option("--gpu-patience", gpu_patience_,
                   "How long to wait for what its GPUs have to do still (default 10)")
        ->option_text("SECONDS")
        ->check(CLI::Range(0.001, 1e6));
    app.add_flag("--no-fsync", no_fsync_, "Do not wait until the image is on disk");
    add_tcp_option(app, tcp_,
                   "What becomes of TCP connections with other processes: refuse the snapshot (the "
                   "default), close them (the restored process finds them reset), or keep them "
                   "established");
    add_json_option(app);
  }

  int run() override {
    const SnapshotReport report = take();
    if (json)
      print_json(report);
    else
      print(report);
    return 0;
  }

 private:
  SnapshotReport take() {
    const StopOnSignal stop{stop_signal};
    ProgressLine progress;
    const auto [encoding, level] = parse_compression(compression_).value();
    SnapshotOptions options{
        .encoding = encoding,
        .kill = kill_,
        .fsync = !no_fsync_,
        .tcp = tcp_,
        .gpu = gpu_,
        .gpu_patience = std::chrono::milliseconds{static_cast<std::int64_t>(gpu_patience_ * 1000)},
        .progress = progress.callback(),
        .stop = stop.token()};
    if (level) options.zstd_level = *level;
    return snapshot(pid_, image_, options);
  }

  void print(const SnapshotReport& report) const {
    fmt::print("{}: process {}{}, {} threads, {} mappings, {} descriptors; {} pages in {}\n",
               image_, pid_, kill_ ? " (killed)" : "", report.threads, report.mappings,
               report.descriptors, report.stored_pages, human_size(report.image_bytes));
    fmt::print("frozen {} (freeze {}, state {}, pages {}), commit {}, total {}\n",
               human_time(report.frozen), human_time(report.freeze), human_time(report.state),
               human_time(report.pages), human_time(report.commit), human_time(report.total));
    if (report.gpu_bytes != 0)
      fmt::print("GPU memory {}: lock {}, save {}{}\n", human_size(report.gpu_bytes),
                 human_time(report.gpu_lock), human_pace(report.gpu_bytes, report.gpu_save),
                 kill_ ? "" : ", back " + human_pace(report.gpu_bytes, report.gpu_resume));
    if (report.gpu_buffer_bytes != 0)
      fmt::print("GPU memory left to the program: {}\n", human_size(report.gpu_buffer_bytes));
  }

  void print_json(const SnapshotReport& report) const {
    JsonObject object;
    object.add("image", image_).add("pid", pid_).add("killed", kill_);
    add_report(object, report);
    fmt::print(json_stream, "{}\n", object.text());
  }

  int pid_ = 0;
  std::string image_;
  bool kill_ = false;
  std::string compression_ = "raw";
  bool no_fsync_ = false;
  TcpConnections tcp_ = TcpConnections::refuse;
  GpuPolicy gpu_ = GpuPolicy::checkpoint;
  double gpu_patience_ = 10;
};

}  // namespace

const Command kSnapshot{
    .name = "snapshot",
    .summary = "Write a running process to a file",
    .failure_status = 1,
    .declare = declare<Snapshot>,
};

}  // namespace icecore::tool
