// SPDX-License-Identifier: Apache-2.0
#include "support/restored.hpp"

#include <icecore/error.hpp>
#include <poll.h>
#include <signal.h>

#include <stdexcept>

namespace test {
namespace {

Arguments restore_command(const std::filesystem::path& image, const Arguments& options) {
  Arguments command = {ICECORE_TOOL, "restore", image};
  command.insert(command.end(), options.begin(), options.end());
  return command;
}

}  // namespace

Restored::Restored(const std::filesystem::path& image, icecore::RestoreOptions options)
    : conversation_(make_conversation()) {
  const Streams streams = conversation_.streams();
  options.standard_streams = {streams.in, streams.out, streams.error};
  process_.emplace(icecore::restore(icecore::Image::open(image), options));
  conversation_.begin();
}

Restored::~Restored() {
  if (!process_) return;
  process_->signal(SIGKILL);
  reap();
}

void Restored::await_end() {
  ::pollfd end = {process_->pidfd(), POLLIN, 0};
  if (::poll(&end, 1, static_cast<int>(kPatience.count())) != 1)
    throw std::runtime_error{"the restored process does not end"};
  reap();
  process_.reset();
}

void Restored::reap() {
  try {
    process_->wait();
  } catch (const icecore::Error& error) {
    if (error.sys_errno() != ECHILD) throw;  // the snapshot that killed it has reaped it
  }
}

RestoredByTool::RestoredByTool(const std::filesystem::path& image, const Arguments& options)
    : conversation_(make_conversation()),
      tool_(Process::start(restore_command(image, options), conversation_.streams())) {
  conversation_.begin();
}

pid_t RestoredByTool::pid() const {
  // The process may answer while the thread that made it still ends: that hands its child over to
  // another thread, and for a moment the lists of their children have it not at all, or twice.
  const Deadline deadline{kPatience};
  for (;;) {
    const std::vector<pid_t> children = children_of(tool_.pid());
    if (children.size() == 1) return children[0];
    if (tool_.ended(std::chrono::milliseconds{1}) || deadline.passed())
      throw std::runtime_error{"icecore restore has not one child"};
  }
}

}  // namespace test
