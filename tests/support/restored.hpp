// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/restore.hpp>

#include <filesystem>
#include <optional>
#include <string>

#include "support/conversation.hpp"
#include "support/process.hpp"

namespace test {

/// A target that was restored by the library, in this process.  The destructor kills and reaps it.
class Restored {
 public:
  /// `options.standard_streams` is filled in here.
  explicit Restored(const std::filesystem::path& image, icecore::RestoreOptions options = {});
  Restored(const Restored&) = delete;
  Restored& operator=(const Restored&) = delete;
  ~Restored();

  std::string ask(std::string_view question) { return conversation_.ask(question); }
  Conversation& conversation() { return conversation_; }
  icecore::RestoredProcess& process() { return *process_; }

  pid_t pid() const { return process_->pid(); }
  bool running() { return ask("ping") == "pong"; }

  /// Waits for its end after icecore killed it.
  void await_end();

 private:
  void reap();

  Conversation conversation_;
  std::optional<icecore::RestoredProcess> process_;
};

/// A target that `icecore restore` brought back, with that program in the foreground.
class RestoredByTool {
 public:
  explicit RestoredByTool(const std::filesystem::path& image, const Arguments& options = {});

  std::string ask(std::string_view question) { return conversation_.ask(question); }
  bool running() { return ask("ping") == "pong"; }
  Conversation& conversation() { return conversation_; }

  /// The program icecore.
  Process& tool() { return tool_; }

  /// The restored process, which answers already.
  pid_t pid() const;

 private:
  Conversation conversation_;
  Process tool_;
};

}  // namespace test
