// SPDX-License-Identifier: Apache-2.0
#include "image/validate_manifest.hpp"

#include <signal.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "image/mapping.hpp"
#include "image/validation.hpp"

namespace icecore {
namespace {

constexpr std::size_t kRegistersBytes = 216;  // struct user_regs_struct
constexpr std::size_t kLimits = 16;
constexpr std::size_t kMaxAffinityWords = 1024;
constexpr std::size_t kMaxNodeWords = 16;
constexpr std::size_t kTlsSlotBytes = 16, kMaxTlsSlots = 3;
constexpr std::size_t kMaxOtherGroups = 65536;  // NGROUPS_MAX
constexpr std::size_t kMaxCredentials = 4096;
constexpr std::size_t kMaxSeccomp = 4096;
constexpr std::size_t kMaxFilters = 256;
constexpr std::size_t kMaxFilterBytes = 4096 * 8;  // BPF_MAXINSNS instructions
constexpr std::size_t kIntervalTimers = 3;
constexpr std::size_t kMaxTimers = 1 << 16;
constexpr std::uint64_t kMaxTimerNs = std::uint64_t{1} << 62;
constexpr std::uint64_t kMaxTimerUs = kMaxTimerNs / 1000;
constexpr std::size_t kMaxNameBytes = 15;  // TASK_COMM_LEN without its NUL

// The XSAVE area begins with 512 bytes of legacy state and a header of 64, of which only the first
// word may be set in the form that the kernel takes back.
constexpr std::size_t kXsaveReservedStart = 520;
constexpr std::size_t kXsaveReservedEnd = 576;
constexpr std::size_t kXsaveComponents = 64;
constexpr std::size_t kMaxXstateBytes = 64 << 10;

constexpr std::uint32_t kTypeBits = 0170000;  // S_IFMT
constexpr std::uint32_t kRegularFile = 0100000;
constexpr std::string_view kMemfdStart = "/memfd:";

void validate_task_name(const std::string& name) {
  require(name.size() <= kMaxNameBytes && has_no_nul(name), "a task name that cannot be set");
}

void validate_pending(const std::vector<std::uint8_t>& pending) {
  require(pending.size() % sizeof(siginfo_t) == 0, "pending signals of {} bytes", pending.size());
}

// ---- threads and signals --------------------------------------------------------------------

void validate_xstate(const state::ThreadT& thread) {
  const std::vector<std::uint8_t>& xstate = thread.xstate;
  require(xstate.size() >= kXsaveReservedEnd && xstate.size() <= kMaxXstateBytes &&
              xstate.size() % 8 == 0,
          "thread {}: {} bytes of extended state", thread.tid, xstate.size());
  require(std::all_of(xstate.begin() + kXsaveReservedStart, xstate.begin() + kXsaveReservedEnd,
                      [](std::uint8_t byte) { return byte == 0; }),
          "thread {}: reserved bytes of the XSAVE header are set", thread.tid);
}

void validate_thread(const state::ThreadT& thread) {
  require(thread.tid > 0, "a thread {}", thread.tid);
  require(thread.registers.size() == kRegistersBytes, "thread {}: {} bytes of registers",
          thread.tid, thread.registers.size());
  validate_xstate(thread);
  validate_task_name(thread.name);
  validate_pending(thread.pending);
  require(thread.affinity.size() <= kMaxAffinityWords, "thread {}: {} words of CPU mask",
          thread.tid, thread.affinity.size());
  require(thread.tls_slots.size() % kTlsSlotBytes == 0 &&
              thread.tls_slots.size() <= kMaxTlsSlots * kTlsSlotBytes,
          "thread {}: {} bytes of segments", thread.tid, thread.tls_slots.size());
  require(thread.memory_nodes.size() <= kMaxNodeWords, "thread {}: {} words of memory nodes",
          thread.tid, thread.memory_nodes.size());
}

void validate_threads(const state::ProcessT& process) {
  require(!process.threads.empty(), "a process without threads");
  std::unordered_set<std::int32_t> tids;
  for (const auto& thread : process.threads) {
    require(thread != nullptr, "an absent thread");
    validate_thread(*thread);
    require(tids.insert(thread->tid).second, "two threads {}", thread->tid);
    validate_optional_index(thread->credentials, process.credentials.size(),
                            "thread of credentials");
    validate_optional_index(thread->seccomp, process.seccomp.size(), "thread of seccomp");
  }
  require(process.threads.front()->tid == process.pid, "thread {} leads process {}",
          process.threads.front()->tid, process.pid);
}

// ---- what a process may do ------------------------------------------------------------------

void validate_credentials(const state::ProcessT& process) {
  require(process.credentials.size() <= kMaxCredentials, "{} credentials",
          process.credentials.size());
  for (const auto& credentials : process.credentials) {
    require(credentials != nullptr, "absent credentials");
    require(credentials->users.size() == 4 && credentials->groups.size() == 4 &&
                credentials->other_groups.size() <= kMaxOtherGroups,
            "credentials of {} users and {} groups", credentials->users.size(),
            credentials->groups.size());
    require((credentials->effective & ~credentials->permitted) == 0 &&
                (credentials->ambient & ~(credentials->permitted & credentials->inheritable)) == 0,
            "capabilities that no process can have");
  }
}

void validate_seccomp(const state::ProcessT& process) {
  require(process.seccomp.size() <= kMaxSeccomp, "{} kinds of seccomp", process.seccomp.size());
  for (const auto& seccomp : process.seccomp) {
    require(seccomp != nullptr, "absent seccomp");
    require(seccomp->strict == seccomp->filters.empty() && seccomp->filters.size() <= kMaxFilters,
            "seccomp with {} filters", seccomp->filters.size());
    for (const auto& filter : seccomp->filters) {
      require(filter != nullptr, "an absent seccomp filter");
      const std::size_t size_bytes = filter->instructions.size();
      require(size_bytes != 0 && size_bytes % 8 == 0 && size_bytes <= kMaxFilterBytes,
              "a seccomp filter of {} bytes", size_bytes);
    }
  }
}

// ---- time -----------------------------------------------------------------------------------

void validate_timer(const state::PosixTimer& timer, const state::ProcessT& process) {
  constexpr int kThreadId = 4;  // SIGEV_THREAD_ID
  require(timer.left_ns() <= kMaxTimerNs && timer.interval_ns() <= kMaxTimerNs,
          "timer {} runs too long", timer.id());
  require(timer.notify() >= 0 && timer.notify() <= (kThreadId | 3), "timer {} notifies by {}",
          timer.id(), timer.notify());
  require(timer.notify() != kThreadId || std::ranges::any_of(process.threads,
                                                             [&](const auto& thread) {
                                                               return thread->tid == timer.thread();
                                                             }),
          "timer {} signals thread {}", timer.id(), timer.thread());
}

void validate_time(const state::ProcessT& process) {
  if (process.time == nullptr) return;  // an image from before there was
  const state::TimeT& time = *process.time;
  require(time.monotonic_ns >= 0 && time.boottime_ns >= 0 &&
              static_cast<std::uint64_t>(time.monotonic_ns) <= kMaxTimerNs &&
              static_cast<std::uint64_t>(time.boottime_ns) <= kMaxTimerNs,
          "clocks at {} and {} ns", time.monotonic_ns, time.boottime_ns);
  require(time.interval_timers.size() == kIntervalTimers, "{} interval timers",
          time.interval_timers.size());
  for (const state::IntervalTimer& timer : time.interval_timers)
    require(timer.left_us() <= kMaxTimerUs && timer.interval_us() <= kMaxTimerUs,
            "an interval timer runs too long");
  require(time.timers.size() <= kMaxTimers, "{} timers", time.timers.size());
  int previous = -1;
  for (const state::PosixTimer& timer : time.timers) {
    require(timer.id() > previous, "timer {} is out of order", timer.id());
    previous = timer.id();
    validate_timer(timer, process);
  }
}

// ---- GPUs and the process
// ----------------------------------------------------------------------------

void validate_gpu(const state::ProcessT& process) {
  constexpr std::size_t kUuidBytes = 16;
  if (!process.gpu) return;
  const state::GpuT& gpu = *process.gpu;
  require(gpu.state_found <= state::GpuState::MAX, "a state of GPUs that is unknown");
  require(std::ranges::any_of(process.threads,
                              [&](const auto& t) { return t->tid == gpu.restore_thread; }),
          "thread {}, which works for the CUDA driver, is none of the process", gpu.restore_thread);
  require(has_no_nul(gpu.driver_release), "a driver's version that holds a NUL byte");
  for (const auto& device : gpu.devices)
    require(device != nullptr && device->uuid.size() == kUuidBytes && has_no_nul(device->name),
            "a GPU without a name");
  for (const auto& buffer : gpu.buffers) {
    require(buffer != nullptr, "an absent buffer in a GPU");
    icecore::validate_gpu_buffer(process, *buffer);
  }
}

void validate_presence(const state::ManifestT& manifest) {
  require(manifest.platform != nullptr, "no platform");
  require(manifest.process != nullptr, "no process");
  require(manifest.process->working_directory != nullptr, "no working directory");
  require(manifest.process->address_space != nullptr, "no address space");
  require(manifest.process->signals != nullptr, "no signals");
  require(manifest.process->descriptors != nullptr, "no descriptors");
}

/// Their contents lie apart, so that no run of pages goes from one into the next.
void validate_kept_file(const state::FileT& file, std::uint64_t& previous_end) {
  constexpr std::size_t kMaxMemfdName = 249;
  constexpr std::uint32_t kKnownSeals = 0x3f;
  const state::KeptFileT& kept = *file.kept;
  require(is_page_aligned(kept.first_page) && kept.first_page > previous_end &&
              kept.first_page < kFilePagesEnd && file.size < kFilePagesEnd - kept.first_page,
          "{} bytes of a file at {:#x}", file.size, kept.first_page);
  previous_end = kept.first_page + up_to_page(file.size);
  require((file.mode & kTypeBits) == kRegularFile, "{} is kept but no regular file", file.path);
  require((kept.seals & ~kKnownSeals) == 0, "{} has seals {:#x}", file.path, kept.seals);
  switch (kept.kind) {
    case state::KeptKind::unlinked:
      require(kept.seals == 0, "{} is on a disk but sealed", file.path);
      return;
    case state::KeptKind::memory:
      require(file.path.starts_with(kMemfdStart) &&
                  file.path.size() - kMemfdStart.size() <= kMaxMemfdName,
              "{} is no name of a memfd", file.path);
      return;
  }
  corrupt("{} is kept in an unknown way", file.path);
}

void validate_files(const state::ProcessT& process) {
  std::uint64_t previous_end = kFilePagesStart - 1;
  for (const auto& file : process.files) {
    require(file != nullptr, "an absent file");
    validate_path(file->path, "a file");
    if (file->kept) validate_kept_file(*file, previous_end);
  }
}

}  // namespace

void validate_gpu_buffer(const state::ProcessT& process, const state::GpuBufferT& buffer) {
  const std::uint64_t at = buffer.address;
  require(at != 0 && buffer.size != 0 && buffer.size <= kAddressEnd && at <= kAddressEnd &&
              buffer.contents_size != 0 && buffer.contents_size <= buffer.size,
          "a buffer in a GPU at {:#x} of {} bytes", at, buffer.size);
  validate_index(buffer.device, process.gpu->devices.size(), "buffer in GPU");
  require(buffer.contents <= state::GpuContents::MAX, "the buffer at {:#x} of unknown contents",
          at);
  if (buffer.contents == state::GpuContents::file) {
    require(process.descriptors != nullptr &&
                std::ranges::any_of(process.descriptors->descriptors,
                                    [&](const auto& d) { return d.number() == buffer.file; }),
            "the buffer at {:#x} is of descriptor {}", at, buffer.file);
    require(buffer.file_offset <= kMaxFileOffset - buffer.contents_size,
            "the buffer at {:#x} is of offset {:#x}", at, buffer.file_offset);
  }
  if (buffer.contents != state::GpuContents::keep) return;
  const auto& mappings = process.address_space->mappings;
  const auto mapping = std::ranges::find_if(
      mappings, [&](const state::Mapping& m) { return buffer.carrier < m.end(); });
  require(mapping != mappings.end() && mapping->start() <= buffer.carrier &&
              mapping->kind() == state::MappingKind::anonymous &&
              buffer.contents_size <= mapping->end() - buffer.carrier,
          "the bytes of the buffer at {:#x} are at {:#x}", at, buffer.carrier);
}

void validate_manifest(const state::ManifestT& manifest, const PageMap& map) {
  validate_presence(manifest);
  require(manifest.platform->xsave_offsets.size() <= kXsaveComponents, "{} XSAVE components",
          manifest.platform->xsave_offsets.size());
  const state::ProcessT& process = *manifest.process;
  require(process.pid > 0 && process.group >= 0 && process.session >= 0, "process {}", process.pid);
  require(process.umask <= 0777, "umask {:#o}", process.umask);
  require(process.limits.size() == kLimits, "{} resource limits", process.limits.size());
  validate_task_name(process.name);
  validate_path(process.working_directory->path, "the working directory");
  validate_files(process);
  validate_address_space(process);
  validate_threads(process);
  validate_gpu(process);
  require(process.signals->actions.size() == kSignals, "{} signal actions",
          process.signals->actions.size());
  validate_pending(process.signals->pending);
  validate_credentials(process);
  validate_seccomp(process);
  validate_time(process);
  require(has_no_nul(process.security_label), "a security label that holds a NUL byte");
  validate_descriptors(process);
  validate_stored_pages(process.address_space->mappings, map);
  validate_file_pages(process, map);
}

}  // namespace icecore
