// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "icecore/restore.hpp"
#include "image/state_generated.h"
#include "state/capture.hpp"
#include "sys/files.hpp"
#include "tracee/call_stream.hpp"

namespace icecore {

/// Every descriptor of the process.  What cannot be kept is added to the refusals, by number.
/// `terminal`: what controls the process and lies outside of it, if anything does.
std::unique_ptr<state::DescriptorsT> capture_descriptors(
    Capture& capture, std::unique_ptr<state::TerminalT>& terminal);

// ---- rebuilding -------------------------------------------------------------------------------

/// Descriptors of ours, one for each description of the image (or none: it stays closed).
/// `root` stands before every path; `pid` is the new process, which has nothing of its own yet;
/// `open_file` opens a file of the image by its index.
using FileOpener = std::function<sys::Fd(std::int32_t file, int flags)>;
std::vector<sys::Fd> rebuild_descriptions(const state::ProcessT& process,
                                          const RestoreOptions& options, const std::string& root,
                                          pid_t pid, const FileOpener& open_file);

/// Reasons why that would fail, found without changing anything.
void check_descriptors(const state::ProcessT& process, const RestoreOptions& options,
                       Refusals& refusals);

/// Who gets the signals of descriptors; once all threads exist.  `threads`: their ids as we see
/// them.
void rebuild_signal_owners(const state::DescriptorsT& image,
                           const std::vector<sys::Fd>& descriptions,
                           const std::vector<pid_t>& threads);

/// What has to wait until the process has all its descriptors and we open no more files.  `root`
/// stands before every path.
void settle_descriptors(const state::DescriptorsT& image, const std::vector<sys::Fd>& descriptions,
                        const std::string& root);

/// Lets TCP connections with others go on; the very last step, since their peers see it.
void release_connections(const state::DescriptorsT& image, const std::vector<sys::Fd>& descriptions,
                         const RestoreOptions& options);

/// Adds the calls that receive so many descriptors over a socket, in the lowest free slots.
void receive_descriptors(int socket, std::size_t count, CallStream& calls);

/// Where passed descriptors arrive in the process: in slots 0, 1, 2 … of its empty table.
///
/// A description whose lowest number is within the slots arrives there at once; all others, and the
/// files that are only needed for mapping, take the slots that are left, and go on from there.
class DescriptorPlan {
 public:
  /// `descriptions`: from rebuild_descriptions.  `files`: how many further descriptors to pass.
  DescriptorPlan(const state::DescriptorsT& image, const std::vector<sys::Fd>& descriptions,
                 std::size_t files);

  /// Passes everything.  `open` gives the further descriptors, which are open only as long as it
  /// takes to pass them: a table of descriptors that grows in a program with threads waits for all
  /// CPUs to notice (synchronize_rcu), milliseconds each time.
  void send(const sys::Fd& socket, const std::vector<sys::Fd>& descriptions,
            const std::function<sys::Fd(std::size_t)>& open) const;

  /// The slot of further descriptor `index`.
  int slot_of_file(std::size_t index) const { return file_slots_[index]; }

  /// A number that nothing else uses, for the socket over which they come.
  int socket_slot() const noexcept { return socket_slot_; }

  /// Adds the calls that receive everything; the socket is at `socket` and moves to socket_slot().
  void receive(int socket, CallStream& calls) const;

  /// Adds the calls that leave the process with its own descriptors and no others.
  void place(CallStream& calls) const;

  /// Adds what has to wait for that: what one descriptor knows of others.
  void finish(CallStream& calls) const;

 private:
  /// What arrives in a slot: a description, or a further descriptor.
  struct Arrival {
    bool is_file = false;
    int index = -1;
  };

  const state::DescriptorsT& image_;
  std::vector<Arrival> arrivals_;
  std::vector<int> file_slots_;
  std::vector<int> description_slots_;  // -1: stays closed
  int socket_slot_ = 0;
};

}  // namespace icecore
