// SPDX-License-Identifier: Apache-2.0
//
// The program `icecore`: finds the subcommand, runs it, and turns what it throws into one message
// and an exit status: 1 failure (restore, run: 125), 2 wrong usage, 128 + N stopped by signal N.
#include <fcntl.h>
#include <fmt/format.h>
#include <icecore/error.hpp>
#include <icecore/version.h>
#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <iterator>
#include <new>
#include <string>
#include <vector>

#include "command.hpp"
#include "json/json.hpp"

namespace icecore::tool {
namespace {

constexpr int kUsage = 2;

const Command* const kCommands[] = {&kSnapshot, &kRestore, &kCheck, &kInspect, &kVerify,
                                    &kCore,     &kRun,     &kStore, &kHost,    &kFleet};

const char* name_of(Errc code) {
  switch (code) {
    case Errc::invalid_argument:
      return "invalid_argument";
    case Errc::target_gone:
      return "target_gone";
    case Errc::permission:
      return "permission";
    case Errc::unsupported:
      return "unsupported";
    case Errc::corrupt_image:
      return "corrupt_image";
    case Errc::incompatible:
      return "incompatible";
    case Errc::io:
      return "io";
    case Errc::cancelled:
      return "cancelled";
    case Errc::internal:
      return "internal";
  }
  return "internal";
}

void print_error(const Invocation& invocation, const Error& error) {
  fmt::print(stderr, "icecore: {}\n", error.what());
  if (!invocation.json) return;
  JsonObject details;
  details.add("code", name_of(error.code()))
      .add("message", error.what())
      .add("errno", error.sys_errno())
      .add("reasons", error.reasons());
  fmt::print(invocation.json_stream, "{}\n", JsonObject{}.add("error", details).text());
}

[[noreturn]] void throw_output_error() {
  const int error = errno;
  throw Error{Errc::io, fmt::format("write to standard output: {}", std::strerror(error)), error};
}

int run(const Command& command, Invocation& invocation) {
  try {
    const int status = invocation.run();
    if (std::fflush(stdout) != 0) throw_output_error();
    return status;
  } catch (const CLI::ParseError&) {
    throw;  // what only shows when the options are looked at together
  } catch (const Error& error) {
    print_error(invocation, error);
    if (error.code() == Errc::cancelled && invocation.stop_signal != 0)
      return 128 + invocation.stop_signal;
  } catch (const std::bad_alloc&) {
    print_error(invocation, Error{Errc::io, "out of memory", ENOMEM});
  } catch (const std::exception& error) {
    print_error(invocation, Error{Errc::internal, error.what()});
  }
  return command.failure_status;
}

/// Files that we open must not become our standard streams by accident.
void fill_standard_streams() {
  for (;;) {
    const int fd = ::open("/dev/null", O_RDWR);
    if (fd > STDERR_FILENO) ::close(fd);
    if (fd < 0 || fd > STDERR_FILENO) return;
  }
}

/// `icecore help restore` is `icecore restore --help`.
std::vector<std::string> arguments(int count, char** values) {
  std::vector<std::string> words(values + 1, values + count);
  if (!words.empty() && words[0] == "help") {
    words.erase(words.begin());
    words.emplace_back("--help");
  }
  return words;
}

/// The commands to which `words` may belong: one when the first is its name, none when it should
/// have been and is not.  Declaring the options of all takes 0.3 ms, a third of the start.
std::vector<const Command*> candidates(const std::vector<std::string>& words) {
  std::vector<const Command*> found;
  const bool any = words.empty() || words[0].starts_with('-');
  std::ranges::copy_if(kCommands, std::back_inserter(found),
                       [&](const Command* command) { return any || command->name == words[0]; });
  return found;
}

int usage_error(const std::string& message) {
  fmt::print(stderr, "icecore: {}\nTry 'icecore help'.\n", message);
  return kUsage;
}

int main(int argc, char** argv) {
  fill_standard_streams();
  // An arena for each of the few threads that a command starts costs four calls, and grows by a
  // call for each page.  What is mapped for one large piece comes as fresh pages the next time.
  ::mallopt(M_ARENA_MAX, 1);
  ::mallopt(M_MMAP_THRESHOLD, 2 << 20);
  ::signal(SIGCHLD, SIG_DFL);  // whoever ignores it does not learn how a child ended

  CLI::App app{"Freezes a running process into one file and brings it back.", "icecore"};
  app.set_version_flag("--version", "icecore " ICECORE_VERSION);
  app.require_subcommand(1);
  app.footer("`icecore help COMMAND` shows the options of a command; see also icecore(1).");

  std::vector<std::string> words = arguments(argc, argv);
  const std::vector<const Command*> commands = candidates(words);
  if (commands.empty()) return usage_error(fmt::format("there is no command {}", words[0]));

  int status = 0;
  std::vector<std::string> behind_dashes;
  std::vector<std::unique_ptr<Invocation>> invocations;
  for (const Command* command : commands) {
    CLI::App* subcommand = app.add_subcommand(command->name, command->summary);
    Invocation& invocation = *invocations.emplace_back(command->declare(*subcommand));
    subcommand->final_callback([command, &invocation, &status, &behind_dashes] {
      invocation.behind_dashes = behind_dashes;
      status = run(*command, invocation);
    });
  }

  if (!words.empty() && words[0] == kRun.name) {
    const auto dashes = std::ranges::find(words, "--");
    if (dashes != words.end()) {
      behind_dashes.assign(dashes + 1, words.end());
      words.erase(dashes, words.end());
    }
  }
  try {
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));  // as CLI11 wants them
  } catch (const CLI::Success& wanted) {                                // --help, --version
    return app.exit(wanted);
  } catch (const CLI::ParseError& error) {
    const bool is_run = !words.empty() && words[0] == kRun.name;
    return usage_error(is_run && behind_dashes.empty()
                           ? "run: give the command behind --, and options before it"
                           : error.what());
  }
  return status;
}

}  // namespace
}  // namespace icecore::tool

int main(int argc, char** argv) { return icecore::tool::main(argc, argv); }
