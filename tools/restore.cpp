// SPDX-License-Identifier: Apache-2.0
//
// icecore restore: a process out of a file, before our eyes or on its own.
#include <fmt/format.h>
#include <icecore/error.hpp>
#include <icecore/restore.hpp>
#include <signal.h>

#include <chrono>
#include <map>
#include <optional>

#include "command.hpp"
#include "foreground.hpp"
#include "json/json.hpp"
#include "pid_file.hpp"
#include "progress_line.hpp"
#include "report.hpp"
#include "restore_options.hpp"
#include "signals.hpp"

namespace icecore::tool {
namespace {

class Restore final : public Invocation {
 public:
  explicit Restore(CLI::App& app) : choices_(app) {
    app.add_option("IMAGE", image_, "The image")->option_text(" ")->required();
    CLI::Option* detach =
        app.add_flag("--detach", detach_, "Print the process id and leave the process to itself");
    app.add_flag(
           "--prepare", prepare_,
           "Do everything but let the process run; that, when a line comes on standard input, "
           "or SIGCONT")
        ->excludes(detach);
    app.add_option("--pid-file", pid_file_, "Also write the process id to a file")
        ->option_text("FILE")
        ->needs(detach);
    CLI::Option* eager = app.add_flag("--eager", eager_, "Read all memory before the process runs");
    app.add_flag("--lazy", lazy_, "Load memory when it is touched, however little it is")
        ->excludes(eager);
    app.add_option("--fill", fill_,
                   "When memory comes that nobody has touched: idle (when faults are quiet), now, "
                   "never")
        ->option_text("idle|now|never")
        ->transform(CLI::CheckedTransformer(
            std::map<std::string, Fill>{
                {"idle", Fill::idle}, {"now", Fill::now}, {"never", Fill::never}},
            CLI::ignore_case))
        ->excludes(eager);
    CLI::Option* record =
        app.add_flag("--record", record_,
                     "Add what the process touches to IMAGE.ws; by default when there is none yet")
            ->excludes(eager);
    app.add_flag("--no-record", no_record_, "Do not record")->excludes(record);
    app.add_option("--record-for", record_for_, "How long to record (default 10)")
        ->option_text("SECONDS")
        ->check(CLI::Range(0.0, 1e6))
        ->excludes(eager);
    add_tcp_option(app, tcp_,
                   "What becomes of established TCP connections of the image: refused (the "
                   "default), found reset (close), or they go on (established)");
    add_json_option(app);
  }

  int run() override {
    // In the foreground standard output is that of the restored process.
    if (!detach_) json_stream = stderr;
    return detach_ ? run_detached() : run_in_foreground();
  }

 private:
  int run_in_foreground() {
    const BlockedSignals blocked{foreground_signals()};
    const TerminalKeeper keeper;
    RestoredProcess process = rebuild();
    if (json) print_json(process);
    // A signal that came too late to stop the restore is meant for the process.
    if (stop_signal != 0) process.signal(stop_signal);
    return stay_in_foreground(process).status;
  }

  int run_detached() {
    std::optional<PidFile> pid_file;
    if (!pid_file_.empty()) pid_file.emplace(pid_file_);

    RestoredProcess process = rebuild();
    try {
      if (pid_file) pid_file->write(process.pid());
    } catch (...) {
      end(process);  // nobody would know of it
      throw;
    }
    if (json)
      print_json(process);
    else
      fmt::print("{}\n", process.pid());
    return 0;
  }

  RestoredProcess rebuild() {
    const StopOnSignal stop{stop_signal};
    ProgressLine progress;
    RestoreOptions options = choices_.options();
    if (eager_) options.loading = Loading::eager;
    if (lazy_) options.loading = Loading::lazy;
    options.fill = fill_;
    if (record_) options.record = Record::yes;
    if (no_record_) options.record = Record::no;
    options.record_for = std::chrono::milliseconds{static_cast<std::int64_t>(record_for_ * 1000)};
    options.on_terminal = !detach_;
    options.tcp = tcp_;
    options.progress = progress.callback();
    options.stop = stop.token();
    RestoredProcess process =
        prepare_ ? start_when_told(options) : restore(Image::open(image_), options);
    for (const std::string& warning : process.report().warnings)
      fmt::print(stderr, "icecore: warning: {}\n", warning);
    return process;
  }

  /// The process reads from where we do: nothing behind the line may be taken from it.
  RestoredProcess start_when_told(const RestoreOptions& options) const {
    PreparedProcess prepared = prepare(Image::open(image_), options);
    if (json) {
      fmt::print(json_stream, "{}\n",
                 JsonObject{}.add("prepared", true).add("pid", prepared.pid()).text());
      std::fflush(json_stream);
    }
    if (!wait_for_line_or(SIGCONT, options.stop))
      throw Error{
          Errc::cancelled,
          "restore: standard input ended before the start: write a line there, or send SIGCONT"};
    return std::move(prepared).start();
  }

  static void end(RestoredProcess& process) {
    process.signal(SIGKILL);
    process.wait();
  }

  void print_json(const RestoredProcess& process) const {
    JsonObject object;
    object.add("image", image_);
    fmt::print(json_stream, "{}\n", add_report(object, process).text());
    std::fflush(json_stream);
  }

  RestoreChoices choices_;
  std::string image_;
  bool detach_ = false;
  bool prepare_ = false;
  std::string pid_file_;
  bool eager_ = false;
  bool lazy_ = false;
  Fill fill_ = Fill::idle;
  bool record_ = false;
  bool no_record_ = false;
  double record_for_ = 10;
  TcpConnections tcp_ = TcpConnections::refuse;
};

}  // namespace

const Command kRestore{
    .name = "restore",
    .summary = "Bring a process back from its image",
    .failure_status = kOwnFailure,
    .declare = declare<Restore>,
};

}  // namespace icecore::tool
