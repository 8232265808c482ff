// SPDX-License-Identifier: Apache-2.0
#pragma once

// A process from its image: the steps, in the order in which lib/restore.cpp takes them.

#include <deque>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "icecore/restore.hpp"
#include "image/state_generated.h"
#include "image/working_set.hpp"
#include "memory/missing_pages.hpp"
#include "memory/page_filler.hpp"
#include "memory/read_ahead.hpp"
#include "state/address_space.hpp"
#include "state/descriptors/descriptors.hpp"
#include "state/kept_files.hpp"
#include "state/segments.hpp"
#include "sys/userfaultfd.hpp"
#include "tracee/call_stream.hpp"
#include "tracee/stub_process.hpp"

namespace icecore {

/// A process under construction.  Destroying it kills what there is of it, until let_run().
class ProcessRebuild {
 public:
  /// Starts the process with its pid, or its whole new pid namespace, and opens its descriptors.
  /// Throws with errno EEXIST when the pid is taken.  `store` must outlive it.  `foreign_vdso`: the
  /// text of the vdso that the process knows, when this kernel has another one.
  ProcessRebuild(const state::ProcessT& image, const PageStore& store,
                 const RestoreOptions& options, bool in_namespace,
                 std::span<const std::uint8_t> foreign_vdso);

  /// An address space with every mapping at its place, empty, and every file passed over.
  void make_address_space();

  /// The contents: all of them, or those that cannot wait.  Returns the number of bytes.
  std::uint64_t fill_memory(bool lazy, const ProgressCallback& progress,
                            const std::stop_token& stop);

  /// Where the others belong; from now on whoever touches one waits until it is filled in.
  struct Lazy {
    sys::Userfaultfd faults;
    MissingPages missing;
  };
  Lazy make_lazy();

  // For a process that is to lose no time when it runs.  Pages are touched, not only mapped: where
  // a hypervisor has page tables of its own beside those of the kernel, the first touch of each
  // page costs 5 µs (docs/kernel.md).

  /// Maps pages of files that the process will use, so that it need not fault for each, nor wait
  /// for the disk.  What cannot be mapped is left to the process.
  void map_file_pages(std::span<const FilePages> used);

  /// Touches those that are there and its own.
  void touch_private_pages();

  const sys::Fd& process() const noexcept { return process_->pidfd(); }
  pid_t pid() const noexcept { return process_->pid(); }
  /// All stopped; the leader first.
  std::deque<Tracee>& threads() noexcept { return process_->threads(); }

  /// Descriptors at their numbers, working directory, limits, signal actions …
  void set_attributes();

  /// Every thread with its id, stopped, and everything that it sets for itself.
  void make_threads();

  /// Takes out the last of what is ours and gives every thread its registers; where timers are to
  /// begin with the process, let_run() does that for its first thread.
  void set_registers();

  struct Running {
    pid_t pid;
    sys::Fd pidfd;
    pid_t init = 0;  ///< of the pid namespace; our child too
    sys::Fd init_pidfd = {};
  };
  /// The process runs.
  Running let_run();

 private:
  void start_namespace();
  sys::Fd release_init();
  void plan_files();
  sys::Fd open_planned_file(std::size_t index);
  int mapped_file_slot(const state::Mapping& mapping) const;
  void lead_vdso() const;
  std::pair<sys::Userfaultfd, int> make_userfaultfd(sys::Userfaultfd::Use use);
  std::vector<pid_t> thread_ids() const;
  void set_up_threads();
  void raise_bare_signals();
  void rebuild_timeouts();
  void begin_timeouts();
  void leave();

  const state::ProcessT& image_;
  const PageStore& store_;
  const RestoreOptions& options_;
  std::span<const std::uint8_t> foreign_vdso_;
  std::optional<StubProcess> init_;
  std::uint64_t init_area_ = 0;
  std::string root_;  // stands before every path

  // Our own copies of what is passed to the process.
  std::optional<KeptFiles> kept_files_;
  std::optional<SegmentRebuild> segments_;
  std::vector<sys::Fd> descriptions_;
  struct PlannedFile {
    std::int32_t file;  // of the image, or -1: `path`
    std::string path;
    int flags;
  };
  std::vector<PlannedFile> files_;
  struct MappedFile {
    std::int32_t file;
    bool writable;
    std::size_t index;  // in files_
  };
  std::vector<MappedFile> mapped_files_;
  std::size_t executable_ = 0;         // in files_
  std::size_t working_directory_ = 0;  // in files_
  std::size_t mount_namespace_ = 0;    // in files_, with init_
  std::optional<DescriptorPlan> plan_;

  std::optional<StubProcess> process_;
  Workplace work_;
  std::optional<RemoteSyscalls> remote_;
  std::optional<CallStream> calls_;
  std::optional<sys::RemoteMemory> memory_;
  std::vector<sys::Registers> registers_;  // what each thread runs on with
  std::vector<std::size_t> sleep_again_;   // threads whose call reads its timeout anew
  std::size_t xstate_bytes_ = 0;           // of this machine's XSAVE area
};

/// Reasons why a rebuild would fail, found without changing anything.
void check_process(const state::ProcessT& image, const RestoreOptions& options, Refusals& refusals);

/// Ids of the image that are taken here.
std::vector<pid_t> ids_in_use(const state::ProcessT& image);

}  // namespace icecore
