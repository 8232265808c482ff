// SPDX-License-Identifier: Apache-2.0
#include "image/validate_manifest.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "image/corrupt.hpp"
#include "image/mapping.hpp"
#include "image/state_generated.h"

namespace icecore {
namespace {

// User addresses end one page below 2^47 on x86-64.
constexpr std::uint64_t kAddressEnd = (std::uint64_t{1} << 47) - kPageSize;
constexpr std::uint64_t kMaxFileOffset = (std::uint64_t{1} << 63) - 1;

constexpr std::size_t kRegistersBytes = 216;  // struct user_regs_struct
constexpr std::size_t kSiginfoBytes = 128;    // siginfo_t
constexpr std::size_t kSignals = 64;
constexpr std::size_t kLimits = 16;
constexpr std::size_t kMaxAuxvBytes = 4096;
constexpr std::size_t kMaxAffinityWords = 1024;
constexpr std::size_t kMaxNodeWords = 16;
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
constexpr int kMaxDescriptors = 1 << 20;

// The XSAVE area begins with 512 bytes of legacy state and a header of 64, of which only the first
// word may be set in the form that the kernel takes back.
constexpr std::size_t kXsaveReservedStart = 520;
constexpr std::size_t kXsaveReservedEnd = 576;
constexpr std::size_t kXsaveComponents = 64;
constexpr std::size_t kMaxXstateBytes = 64 << 10;

constexpr std::uint32_t kTypeBits = 0170000;  // S_IFMT
constexpr std::uint32_t kRegularFile = 0100000;
constexpr std::string_view kMemfdStart = "/memfd:";

constexpr auto kKnownMappingFlags = static_cast<std::uint64_t>(state::MappingFlag::ANY);

bool is_page_aligned(std::uint64_t value) { return value % kPageSize == 0; }

bool has_no_nul(std::string_view text) { return text.find('\0') == text.npos; }

void validate_path(const std::string& path, const char* what) {
  require(path.starts_with('/'), "the path of {} is not absolute", what);
  require(has_no_nul(path), "the path of {} holds a NUL byte", what);
}

void validate_task_name(const std::string& name) {
  require(name.size() <= kMaxNameBytes && has_no_nul(name), "a task name that cannot be set");
}

void validate_index(std::int64_t index, std::size_t size, const char* what) {
  require(index >= 0 && static_cast<std::uint64_t>(index) < size, "{} {} of {}", what, index, size);
}

void validate_optional_index(std::int64_t index, std::size_t size, const char* what) {
  if (index != -1) validate_index(index, size, what);
}

void validate_pending(const std::vector<std::uint8_t>& pending) {
  require(pending.size() % kSiginfoBytes == 0, "pending signals of {} bytes", pending.size());
}

// ---- memory ---------------------------------------------------------------------------------

void validate_kind(const state::Mapping& mapping, const state::ProcessT& process) {
  const bool is_file = mapping.kind() == state::MappingKind::file;
  if (is_file)
    validate_index(mapping.file(), process.files.size(), "mapping of file");
  else
    require(mapping.file() == -1, "mapping {:#x} is not of a file but names one", mapping.start());

  switch (mapping.kind()) {
    case state::MappingKind::anonymous:
      require(!mapping.shared(), "mapping {:#x} is private and shared", mapping.start());
      return;
    case state::MappingKind::shared_anonymous:
      require(mapping.shared(), "mapping {:#x} is shared memory but private", mapping.start());
      require(mapping.object() < process.address_space->shared_objects.size(),
              "mapping of shared object {}", mapping.object());
      return;
    case state::MappingKind::file:
    case state::MappingKind::vdso:
      return;
  }
  corrupt("mapping {:#x} of unknown kind", mapping.start());
}

void validate_mapping(const state::Mapping& mapping, const state::ProcessT& process) {
  const std::uint64_t start = mapping.start();
  const std::uint64_t end = mapping.end();
  require(is_page_aligned(start) && is_page_aligned(end) && is_page_aligned(mapping.offset()),
          "mapping {:#x} is not page-aligned", start);
  require(start < end && end <= kAddressEnd, "mapping {:#x} ends at {:#x}", start, end);
  require(mapping.offset() <= kMaxFileOffset - (end - start), "mapping {:#x} of offset {:#x}",
          start, mapping.offset());
  require(mapping.protection() <= 7, "mapping {:#x} of protection {}", start, mapping.protection());
  require((mapping.vm_flags() & ~kKnownMappingFlags) == 0, "mapping {:#x} of flags {:#x}", start,
          mapping.vm_flags());
  validate_optional_index(mapping.name(), process.address_space->names.size(), "mapping of name");
  validate_kind(mapping, process);
}

void validate_special_memory(const state::Mapping& mapping) {
  using state::MappingFlag;
  const bool anonymous = mapping.kind() == state::MappingKind::anonymous;
  require(anonymous || !has(mapping, MappingFlag::droppable), "mapping {:#x} is droppable",
          mapping.start());
  for (const auto& [flag, bytes] : {std::pair{MappingFlag::huge_2m, std::uint64_t{2} << 20},
                                    std::pair{MappingFlag::huge_1g, std::uint64_t{1} << 30}})
    require(!has(mapping, flag) ||
                (anonymous && mapping.start() % bytes == 0 && mapping.end() % bytes == 0),
            "mapping {:#x} to {:#x} has huge pages", mapping.start(), mapping.end());
  require(anonymous || !has(mapping, MappingFlag::gpu_data), "mapping {:#x} is of GPU data",
          mapping.start());
  require(!has(mapping, MappingFlag::huge_2m) || !has(mapping, MappingFlag::huge_1g),
          "mapping {:#x} has pages of two sizes", mapping.start());
}

void validate_guards(const state::AddressSpaceT& space) {
  std::uint64_t previous_end = 0;
  for (const state::AddressRange& guard : space.guards) {
    require(is_page_aligned(guard.start()) && is_page_aligned(guard.end()) &&
                previous_end <= guard.start() && guard.start() < guard.end() &&
                guard.end() <= kAddressEnd,
            "a guard region at {:#x} to {:#x}", guard.start(), guard.end());
    previous_end = guard.end();
    const auto mapping = std::ranges::find_if(
        space.mappings, [&](const state::Mapping& m) { return guard.start() < m.end(); });
    require(mapping != space.mappings.end() && mapping->start() <= guard.start() &&
                guard.end() <= mapping->end(),
            "the guard region at {:#x} is in no mapping", guard.start());
  }
  require(space.new_memory <= state::NewMemory::MAX, "new memory is locked in an unknown way");
}

void validate_segments(const state::AddressSpaceT& space) {
  constexpr std::uint32_t kMode = 02777;  // SHM_LOCKED, permissions
  std::unordered_set<std::uint32_t> objects;
  for (const auto& segment : space.segments) {
    require(segment != nullptr, "an absent segment of shared memory");
    validate_index(segment->object, space.shared_objects.size(), "segment of shared object");
    require(objects.insert(segment->object).second, "two segments are one shared object");
    require(segment->id >= 0 && (segment->mode & ~kMode) == 0, "segment {} of mode {:#o}",
            segment->id, segment->mode);
    const std::uint64_t size = space.shared_objects[segment->object].size();
    require(size <= kAddressEnd && segment->size <= size && size - segment->size < kPageSize,
            "segment {} has {} bytes", segment->id, segment->size);
  }
}

void validate_holes(const state::AddressSpaceT& space) {
  for (const state::AddressRange& hole : space.holes)
    require(is_page_aligned(hole.start()) && is_page_aligned(hole.end()) &&
                hole.start() < hole.end() && hole.end() <= kAddressEnd,
            "a hole at {:#x} to {:#x}", hole.start(), hole.end());
}

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

void validate_range(std::uint64_t start, std::uint64_t end, const char* what) {
  require(start <= end && end <= kAddressEnd, "the {} are at {:#x} to {:#x}", what, start, end);
}

void validate_address_space(const state::ProcessT& process) {
  const state::AddressSpaceT& space = *process.address_space;
  std::uint64_t previous_end = 0;
  for (const state::Mapping& mapping : space.mappings) {
    validate_mapping(mapping, process);
    validate_special_memory(mapping);
    require(previous_end <= mapping.start(), "mapping {:#x} is out of order", mapping.start());
    previous_end = mapping.end();
  }
  validate_guards(space);
  validate_segments(space);
  validate_holes(space);
  for (const std::string& name : space.names)
    require(has_no_nul(name), "a mapping's name holds a NUL byte");
  require(space.auxv.size() % 16 == 0 && space.auxv.size() <= kMaxAuxvBytes,
          "an auxiliary vector of {} bytes", space.auxv.size());
  for (const std::uint64_t address :
       {space.start_code, space.end_code, space.start_data, space.end_data, space.start_brk,
        space.brk, space.start_stack})
    require(address <= kAddressEnd, "address {:#x} is not the program's", address);
  validate_range(space.arg_start, space.arg_end, "arguments");
  validate_range(space.env_start, space.env_end, "environment variables");
  validate_index(space.executable, process.files.size(), "executable is file");
}

std::uint64_t up_to_page(std::uint64_t bytes) {
  return (bytes + kPageSize - 1) / kPageSize * kPageSize;
}

/// Every stored page beyond the addresses of processes must lie in a file that is kept.
void validate_file_pages(const state::ProcessT& process, const PageMap& map) {
  auto file = process.files.begin();
  for (const PageRun& run : map.runs) {
    if (run.end() <= kFilePagesStart) continue;
    const auto end_of = [](const state::FileT& f) {
      return f.kept->first_page + up_to_page(f.size);
    };
    while (file != process.files.end() && (!(*file)->kept || end_of(**file) <= run.address)) ++file;
    require(file != process.files.end() && (*file)->kept->first_page <= run.address &&
                run.end() <= end_of(**file),
            "stored page {:#x} is of no file", run.address);
  }
}

/// Every other must lie in memory that is the process's own: pages of a shared file mapping belong
/// to the file.
void validate_stored_pages(const std::vector<state::Mapping>& mappings, const PageMap& map) {
  auto mapping = mappings.begin();
  for (const PageRun& run : map.runs) {
    if (run.address >= kFilePagesStart) break;
    for (std::uint64_t address = run.address; address < run.end(); address = mapping->end()) {
      while (mapping != mappings.end() && mapping->end() <= address) ++mapping;
      require(mapping != mappings.end() && mapping->start() <= address,
              "stored page {:#x} is not mapped", address);
      require(mapping->kind() != state::MappingKind::file || !mapping->shared(),
              "stored page {:#x} is of a shared file", address);
      require(!has(*mapping, state::MappingFlag::droppable), "stored page {:#x} is droppable",
              address);
    }
  }
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

// ---- descriptors ----------------------------------------------------------------------------

void validate_watches(const state::InotifyT& inotify) {
  constexpr int kMostWatches = 1 << 24;
  int previous = 0;
  for (const auto& watch : inotify.watches) {
    require(watch != nullptr, "an absent watch");
    require(watch->descriptor > previous && watch->descriptor < kMostWatches,
            "watch {} is out of order", watch->descriptor);
    previous = watch->descriptor;
    validate_path(watch->path, "a watch");
  }
}

void validate_open(const state::OpenUnion& open, const state::ProcessT& process) {
  require(open.value != nullptr, "a descriptor of nothing");
  switch (open.type) {
    case state::Open::RegularFile:
      validate_index(open.AsRegularFile()->file, process.files.size(), "descriptor of file");
      return;
    case state::Open::Directory:
      validate_path(open.AsDirectory()->path, "a directory");
      return;
    case state::Open::Device:
      validate_path(open.AsDevice()->path, "a device");
      return;
    case state::Open::Pipe:
      validate_index(open.AsPipe()->pipe, process.descriptors->pipes.size(), "descriptor of pipe");
      return;
    case state::Open::Epoll:
      for (const state::EpollWatch& watch : open.AsEpoll()->watches)
        require(watch.number() >= 0 && watch.number() < kMaxDescriptors && watch.via() >= 0 &&
                    watch.via() < kMaxDescriptors,
                "an epoll instance that watches {} by {}", watch.number(), watch.via());
      return;
    case state::Open::TimerFd:
      require(open.AsTimerFd()->expires_ns >= 0 && open.AsTimerFd()->interval_ns >= 0,
              "a timerfd of negative time");
      return;
    case state::Open::Socket:
      validate_index(open.AsSocket()->socket, process.descriptors->sockets.size(),
                     "descriptor of socket");
      return;
    case state::Open::PathOnly:
      validate_path(open.AsPathOnly()->path, "a place");
      return;
    case state::Open::KernelFile:
      validate_path(open.AsKernelFile()->path, "a file of the kernel");
      return;
    case state::Open::Fifo:
      validate_path(open.AsFifo()->path, "a fifo");
      validate_index(open.AsFifo()->pipe, process.descriptors->pipes.size(), "fifo with pipe");
      return;
    case state::Open::Inotify:
      validate_watches(*open.AsInotify());
      return;
    case state::Open::EventFd:
    case state::Open::SignalFd:
    case state::Open::PidFd:
    case state::Open::External:
      return;
    case state::Open::NONE:
      break;
  }
  corrupt("a descriptor of unknown kind");
}

void validate_address(const std::vector<std::uint8_t>& address,
                      const state::SocketObjectT& socket) {
  constexpr std::size_t kMaxAddress = 128;  // struct sockaddr_storage
  if (address.empty()) return;
  require(address.size() >= 2 && address.size() <= kMaxAddress, "an address of {} bytes",
          address.size());
  require(address[0] + (address[1] << 8) == socket.family, "an address of another family");
}

void validate_message(const state::SocketMessageT& message, const state::SocketObjectT& socket) {
  constexpr std::size_t kMaxPassed = 253;  // SCM_MAX_FD
  validate_address(message.from, socket);
  require(message.descriptors.size() <= kMaxPassed, "a message with {} descriptors",
          message.descriptors.size());
}

void validate_socket(std::size_t index,
                     const std::vector<std::unique_ptr<state::SocketObjectT>>& all) {
  constexpr int kUnix = 1, kInet = 2, kInet6 = 10, kNetlink = 16;
  constexpr int kStream = 1, kDatagram = 2, kRaw = 3, kPackets = 5, kTcp = 6, kUdp = 17;
  constexpr std::size_t kMaxOption = 256;
  const state::SocketObjectT& socket = *all[index];
  const bool is_inet = socket.family == kInet || socket.family == kInet6;
  const bool is_known =
      (socket.family == kUnix &&
       (socket.type == kStream || socket.type == kDatagram || socket.type == kPackets)) ||
      (is_inet && socket.type == kStream && socket.protocol == kTcp) ||
      (is_inet && socket.type == kDatagram && socket.protocol == kUdp) ||
      (socket.family == kNetlink && (socket.type == kDatagram || socket.type == kRaw));
  require(is_known, "a socket of family {}, type {}, protocol {}", socket.family, socket.type,
          socket.protocol);
  require(socket.shut <= 3, "a socket that is shut down as {}", socket.shut);
  validate_address(socket.local, socket);
  validate_address(socket.remote, socket);
  for (const auto& option : socket.options)
    require(option != nullptr && option->value.size() <= kMaxOption, "a socket option too large");
  for (const auto& message : socket.messages) {
    require(message != nullptr && socket.family == kUnix, "a message in the wrong place");
    validate_message(*message, socket);
  }
  require(socket.received.empty() || (is_inet && socket.type == kStream && socket.peer >= 0),
          "a socket that has received what nobody sent");
  validate_optional_index(socket.peer, all.size(), "socket connected to");
  if (socket.peer < 0) return;
  const state::SocketObjectT& peer = *all[static_cast<std::size_t>(socket.peer)];
  const bool is_tcp = is_inet && socket.type == kStream;
  const bool peer_is_inet = peer.family == kInet || peer.family == kInet6;
  require(((socket.family == kUnix && peer.family == kUnix) || (is_tcp && peer_is_inet)) &&
              peer.type == socket.type,
          "a socket connected to one of another kind");
  require(!is_tcp || socket.accepted != peer.accepted, "a connection with two equal ends");
  require(socket.type == kDatagram || (peer.peer == static_cast<std::int64_t>(index) &&
                                       socket.peer != static_cast<std::int64_t>(index)),
          "a socket connected to one that is not connected to it");
}

void validate_sockets(const state::DescriptorsT& table) {
  for (const auto& socket : table.sockets) require(socket != nullptr, "an absent socket");
  for (std::size_t i = 0; i < table.sockets.size(); ++i) validate_socket(i, table.sockets);
}

void validate_packets(const state::PipeObjectT& pipe) {
  constexpr std::uint32_t kMaxPacket = 4096;
  if (pipe.packets.empty()) return;
  std::uint64_t bytes = 0;
  for (const std::uint32_t packet : pipe.packets) {
    require(packet != 0 && packet <= kMaxPacket, "a packet of {} bytes in a pipe", packet);
    bytes += packet;
  }
  require(bytes == pipe.contents.size(), "packets of {} bytes in a pipe with {}", bytes,
          pipe.contents.size());
}

void validate_ownership(const state::DescriptionT& description, const state::ProcessT& process) {
  for (const state::FileLock& lock : description.locks) {
    require(lock.kind() <= state::LockKind::lease, "a lock of unknown kind");
    require(lock.start() <= lock.last() && lock.last() <= kMaxFileOffset, "a lock from {} to {}",
            lock.start(), lock.last());
  }
  require(description.owner <= state::SignalOwner::group, "signals for an unknown kind of owner");
  require(description.owner_signal >= 0 && description.owner_signal <= static_cast<int>(kSignals),
          "signal {} of a descriptor", description.owner_signal);
  if (description.owner == state::SignalOwner::thread)
    validate_index(description.owner_thread, process.threads.size(), "signals for thread");
}

void validate_descriptors(const state::ProcessT& process) {
  const state::DescriptorsT& table = *process.descriptors;
  std::int64_t previous = -1;
  for (const state::Descriptor& descriptor : table.descriptors) {
    require(descriptor.number() > previous && descriptor.number() < kMaxDescriptors,
            "descriptor {} is out of order", descriptor.number());
    previous = descriptor.number();
    validate_index(descriptor.description(), table.descriptions.size(),
                   "descriptor of description");
  }
  for (const auto& description : table.descriptions) {
    require(description != nullptr, "an absent description");
    validate_open(description->open, process);
    validate_ownership(*description, process);
  }
  validate_sockets(table);
  for (const auto& pipe : table.pipes) {
    require(pipe != nullptr, "an absent pipe");
    require(pipe->contents.size() <= pipe->capacity, "a pipe of {} bytes holds {}", pipe->capacity,
            pipe->contents.size());
    validate_packets(*pipe);
  }
}

// ---- the process ----------------------------------------------------------------------------

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
