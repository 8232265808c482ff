// SPDX-License-Identifier: Apache-2.0
//
// icecore::Image: what the public sees of an image file.  Image::check() is in check.cpp.
#include "icecore/image.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/user.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "icecore/error.hpp"
#include "image/format.hpp"
#include "image/image_data.hpp"
#include "image/image_writer.hpp"
#include "image/new_file.hpp"
#include "image/state_generated.h"
#include "image/syscall_names.hpp"
#include "image/working_set.hpp"
#include "memory/page_encoder.hpp"
#include "memory/page_store.hpp"
#include "memory/worker.hpp"
#include "sys/bytes.hpp"

namespace icecore {
namespace {

// ---- info -----------------------------------------------------------------------------------

std::string hex(const std::vector<std::uint8_t>& bytes) {
  std::string text;
  for (const std::uint8_t byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

// What a thread finds in rax when it is stopped in a system call that it was waiting in.
bool is_interrupted(std::uint64_t rax) {
  constexpr std::int64_t kRestartFirst = -516;  // ERESTART_RESTARTBLOCK
  constexpr std::int64_t kRestartLast = -512;   // ERESTARTSYS
  const auto result = static_cast<std::int64_t>(rax);
  return (result >= kRestartFirst && result <= kRestartLast) || result == -EINTR;
}

std::string blocked_in(const state::ThreadT& thread) {
  user_regs_struct registers;
  std::memcpy(&registers, thread.registers.data(), sizeof registers);
  const bool in_syscall = static_cast<std::int64_t>(registers.orig_rax) >= 0;
  return in_syscall && is_interrupted(registers.rax) ? syscall_name(registers.orig_rax)
                                                     : std::string{};
}

std::string protection_text(const state::Mapping& mapping) {
  const std::uint32_t protection = mapping.protection();
  return {(protection & PROT_READ) != 0 ? 'r' : '-', (protection & PROT_WRITE) != 0 ? 'w' : '-',
          (protection & PROT_EXEC) != 0 ? 'x' : '-', mapping.shared() ? 's' : 'p'};
}

std::string mapping_name(const state::Mapping& mapping, const state::ProcessT& process) {
  if (mapping.name() >= 0)
    return process.address_space->names[static_cast<std::size_t>(mapping.name())];
  if (mapping.file() >= 0) return process.files[static_cast<std::size_t>(mapping.file())]->path;
  return {};
}

std::vector<ImageInfo::Mapping> mapping_infos(const state::ProcessT& process, const PageMap& map) {
  std::vector<ImageInfo::Mapping> infos;
  auto run = map.runs.begin();
  for (const state::Mapping& mapping : process.address_space->mappings) {
    std::uint64_t stored_bytes = 0;
    while (run != map.runs.end() && run->address < mapping.end()) {
      stored_bytes += std::min(run->end(), mapping.end()) - std::max(run->address, mapping.start());
      if (run->end() > mapping.end()) break;  // goes on in the next mapping
      ++run;
    }
    infos.push_back({.start = mapping.start(),
                     .end = mapping.end(),
                     .protection = protection_text(mapping),
                     .offset = mapping.offset(),
                     .name = mapping_name(mapping, process),
                     .stored_bytes = stored_bytes});
  }
  return infos;
}

struct DescriptorText {
  std::string kind;
  std::string detail;
};

std::string describe_socket(const state::SocketObjectT& socket) {
  constexpr int kUnix = 1, kInet = 2, kInet6 = 10, kStream = 1, kRaw = 3, kUdp = 17, kUdpLite = 136;
  std::string text = socket.family == kUnix                              ? "unix"
                     : socket.family != kInet && socket.family != kInet6 ? "netlink"
                     : socket.type == kStream                            ? "TCP"
                     : socket.type == kRaw                               ? "raw"
                     : socket.protocol == kUdp                           ? "UDP"
                     : socket.protocol == kUdpLite                       ? "UDP-Lite"
                                                                         : "ICMP";
  if (socket.listening) text += ", listening";
  if (socket.peer >= 0) text += fmt::format(", connected to socket {}", socket.peer);
  if (socket.peer_gone) text += ", hung up";
  return text;
}

DescriptorText describe(const state::OpenUnion& open, const state::ProcessT& process) {
  switch (open.type) {
    case state::Open::RegularFile:
      return {"file", process.files[static_cast<std::size_t>(open.AsRegularFile()->file)]->path};
    case state::Open::Directory:
      return {"directory", open.AsDirectory()->path};
    case state::Open::Device:
      return {"device", open.AsDevice()->path};
    case state::Open::Pipe:
      return {"pipe", fmt::format("{} end of pipe {}", open.AsPipe()->write_end ? "write" : "read",
                                  open.AsPipe()->pipe)};
    case state::Open::EventFd:
      return {"eventfd", fmt::format("count {}", open.AsEventFd()->count)};
    case state::Open::External:
      return {"external", open.AsExternal()->what};
    case state::Open::Epoll:
      return {"epoll", fmt::format("{} watches", open.AsEpoll()->watches.size())};
    case state::Open::TimerFd:
      return {"timerfd", fmt::format("clock {}", open.AsTimerFd()->clock)};
    case state::Open::SignalFd:
      return {"signalfd", fmt::format("signals {:#x}", open.AsSignalFd()->mask)};
    case state::Open::Socket:
      return {
          "socket",
          describe_socket(
              *process.descriptors->sockets[static_cast<std::size_t>(open.AsSocket()->socket)])};
    case state::Open::PidFd:
      return {"pidfd", "the process itself"};
    case state::Open::PathOnly:
      return {"path", open.AsPathOnly()->path};
    case state::Open::KernelFile:
      return {"kernel file", open.AsKernelFile()->path};
    case state::Open::Fifo:
      return {"fifo", open.AsFifo()->path};
    case state::Open::Inotify:
      return {"inotify", fmt::format("{} watches", open.AsInotify()->watches.size())};
    case state::Open::Pty: {
      const auto& pty = *open.AsPty();
      return {"pseudo terminal",
              fmt::format("{} of /dev/pts/{}", pty.master ? "master" : "slave",
                          process.descriptors->ptys[static_cast<std::size_t>(pty.pty)]->number)};
    }
    case state::Open::NONE:
      break;
  }
  return {};
}

std::vector<ImageInfo::Descriptor> descriptor_infos(const state::ProcessT& process) {
  std::vector<ImageInfo::Descriptor> infos;
  for (const state::Descriptor& descriptor : process.descriptors->descriptors) {
    const auto& description = *process.descriptors->descriptions[descriptor.description()];
    DescriptorText text = describe(description.open, process);
    infos.push_back({.number = descriptor.number(),
                     .kind = std::move(text.kind),
                     .detail = std::move(text.detail),
                     .close_on_exec = descriptor.close_on_exec()});
  }
  return infos;
}

std::vector<ImageInfo::Thread> thread_infos(const state::ProcessT& process) {
  std::vector<ImageInfo::Thread> infos;
  for (const auto& thread : process.threads)
    infos.push_back({.tid = thread->tid, .name = thread->name, .blocked_in = blocked_in(*thread)});
  return infos;
}

std::vector<ImageInfo::File> file_infos(const state::ProcessT& process) {
  std::vector<ImageInfo::File> infos;
  for (const auto& file : process.files)
    infos.push_back(
        {.path = file->path, .size_bytes = file->size, .build_id = hex(file->build_id)});
  return infos;
}

/// The process's memory at [start, end), as far as the image stores it; the rest as zeros.
std::string read_memory(const ImageReader& reader, std::uint64_t start, std::uint64_t end) {
  std::string text(end - start, '\0');
  const PageStore store{reader};
  PageStore::Scratch scratch;
  std::uint64_t first = 0;
  for (const PageRun& run : store.runs()) {
    const std::uint64_t from = std::max(start, run.address) / kPageSize * kPageSize;
    for (std::uint64_t address = from; address < std::min(end, run.end()); address += kPageSize) {
      const auto page = store.read(first + (address - run.address) / kPageSize, 1, scratch);
      const std::uint64_t skipped = start > address ? start - address : 0;
      const std::uint64_t count = std::min(kPageSize - skipped, end - address - skipped);
      std::memcpy(&text[address + skipped - start], &page[skipped], count);
    }
    first += run.pages;
  }
  return text;
}

/// argv, which a process keeps in its own memory, each with its NUL.
std::vector<std::string> read_arguments(const ImageReader& reader) {
  constexpr std::uint64_t kMaxBytes = std::uint64_t{6} << 20;  // the kernel's own limit for both
  const state::AddressSpaceT& space = *reader.manifest().process->address_space;
  const std::uint64_t end = std::min(space.arg_end, space.arg_start + kMaxBytes);
  const std::string text = read_memory(reader, space.arg_start, end);

  std::vector<std::string> arguments;
  for (std::size_t at = 0; at < text.size();) {
    arguments.emplace_back(text.c_str() + at);
    at += arguments.back().size() + 1;
  }
  return arguments;
}

// ---- verify ---------------------------------------------------------------------------------

void throw_if_stopped(const std::stop_token& stop) {
  if (stop.stop_requested()) throw Error{Errc::cancelled, "cancelled"};
}

/// Reads all stored pages, on this thread and, if there are many, on a second one.
class Verification {
 public:
  Verification(const ImageReader& reader, const ProgressCallback& progress, std::stop_token stop)
      : store_(reader),
        stored_pages_(reader.page_map().stored_pages),
        progress_(progress),
        stop_(std::move(stop)) {}

  void run() {
    work_together(stored_pages_ > kPiecePages, [this] { work(); });
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  static constexpr std::uint64_t kPiecePages = 1024;  // 4 MiB, and a call of the progress callback

  // Pieces are given out in order.  So when one fails, all before it have been given out, and the
  // first of those that failed is the first of the image.
  void work() noexcept {
    PageStore::Scratch scratch;
    for (;;) {
      const std::uint64_t first = next_.fetch_add(kPiecePages);
      if (first >= std::min(stored_pages_, failed_at_.load())) return;
      try {
        throw_if_stopped(stop_);
        read_piece(first, scratch);
      } catch (...) {
        note_failure(first);
      }
    }
  }

  void read_piece(std::uint64_t first, PageStore::Scratch& scratch) {
    const std::uint64_t end = std::min(stored_pages_, first + kPiecePages);
    for (std::uint64_t page = first; page < end; page += PageStore::kMaxPages)
      store_.read(page, std::min(PageStore::kMaxPages, end - page), scratch);
    const std::lock_guard lock{mutex_};
    done_pages_ += end - first;
    if (progress_) progress_({"verify", done_pages_ * kPageSize, stored_pages_ * kPageSize});
  }

  void note_failure(std::uint64_t first) {
    const std::lock_guard lock{mutex_};
    if (first >= failed_at_) return;
    failed_at_ = first;
    failure_ = std::current_exception();
  }

  const PageStore store_;
  const std::uint64_t stored_pages_;
  const ProgressCallback& progress_;
  const std::stop_token stop_;
  std::atomic<std::uint64_t> next_ = 0;
  std::atomic<std::uint64_t> failed_at_ = UINT64_MAX;

  std::mutex mutex_;  // guards what follows
  std::uint64_t done_pages_ = 0;
  std::exception_ptr failure_;
};

// ---- write_core -----------------------------------------------------------------------------

struct Watcher {
  void operator()(std::uint64_t done_bytes) const {
    throw_if_stopped(stop);
    if (progress) progress({"write", done_bytes, total_bytes});
  }

  const ProgressCallback& progress;
  const std::stop_token& stop;
  std::uint64_t total_bytes;
};

void copy_image(std::span<const std::byte> image, const std::filesystem::path& core,
                const Watcher& watcher) {
  NewFile file{core};
  for (std::uint64_t offset = 0; offset < image.size(); offset += format::kWriteAlignment) {
    watcher(offset);
    file.write_at(offset, image.subspan(offset, std::min(image.size() - offset,
                                                         std::size_t{format::kWriteAlignment})));
  }
  watcher(image.size());
  file.commit(true);
}

/// Decodes all pages into a raw image.
void write_decoded(const ImageReader& reader, const std::filesystem::path& core,
                   const Watcher& watcher) {
  ImageWriter writer{core};
  PageEncoder encoder{writer, Encoding::raw, 0};
  const PageStore store{reader};
  PageStore::Scratch scratch;
  std::uint64_t page = 0;
  for (const PageRun& run : store.runs()) {
    for (std::uint64_t left = run.pages; left != 0;) {
      const std::uint64_t count = std::min(left, PageStore::kMaxPages);
      sys::copy_bytes(store.read(page, count, scratch), encoder.buffer().data());
      const PageRun part{.address = run.end() - left * kPageSize, .pages = count};
      encoder.submit({&part, 1});
      page += count;
      left -= count;
      watcher(page * kPageSize);
    }
  }
  writer.finish(reader.manifest(), encoder.finish());
  writer.commit(true);
}

}  // namespace

Image::Image(std::shared_ptr<const Data> data) : data_(std::move(data)) {}

Image Image::open(const std::filesystem::path& path) {
  MappedFile file = MappedFile::open(path);
  try {
    ImageReader reader{file.bytes()};
    return Image{std::shared_ptr<const Data>{
        new Data{.path = path, .file = std::move(file), .reader = std::move(reader)}}};
  } catch (const Error& e) {
    throw Error{e.code(), fmt::format("{}: {}", path.string(), e.what()), e.sys_errno()};
  }
}

std::string Image::identity() const {
  const Digest128& digest = data_->reader.identity();
  return fmt::format("{:016x}{:016x}", digest.high, digest.low);
}

namespace {

std::string gpu_uuid(const std::vector<std::uint8_t>& bytes) {
  std::string text = "GPU-";
  for (std::size_t i = 0; i < bytes.size(); ++i)
    text += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", bytes[i]);
  return text;
}

/// The path that a descriptor leads to, if it is one of a file.
std::string path_of(const state::ProcessT& process, int number) {
  for (const state::Descriptor& descriptor : process.descriptors->descriptors) {
    if (descriptor.number() != number) continue;
    const auto& open = process.descriptors->descriptions[descriptor.description()]->open;
    const auto* const file = open.AsRegularFile();
    if (file != nullptr) return process.files[static_cast<std::size_t>(file->file)]->path;
  }
  return {};
}

ImageInfo::Gpu::Buffer buffer_info(const state::ProcessT& process,
                                   const std::vector<ImageInfo::Gpu::Device>& devices,
                                   const state::GpuBufferT& buffer) {
  constexpr std::array kContents{"keep", "drop", "file"};
  const bool of_file = buffer.contents == state::GpuContents::file;
  return {.address = buffer.address,
          .size_bytes = buffer.size,
          .device = devices.at(buffer.device).uuid,
          .contents = kContents.at(static_cast<std::size_t>(buffer.contents)),
          .digest = buffer.contents == state::GpuContents::drop
                        ? std::string{}
                        : fmt::format("{:016x}{:016x}", buffer.digest_high, buffer.digest_low),
          .file = of_file ? path_of(process, buffer.file) : std::string{},
          .file_offset = of_file ? buffer.file_offset : 0};
}

std::optional<ImageInfo::Gpu> gpu_info(const state::ProcessT& process) {
  if (!process.gpu) return {};
  constexpr std::array kStates{"running", "locked", "checkpointed"};
  const state::GpuT& gpu = *process.gpu;
  ImageInfo::Gpu info{
      .driver = gpu.driver_release,
      .cuda = fmt::format("{}.{}", gpu.driver_api / 1000, gpu.driver_api % 1000 / 10),
      .state = kStates.at(static_cast<std::size_t>(gpu.state_found)),
      .saved_bytes = gpu.saved_bytes,
      .devices = {},
      .buffers = {},
  };
  for (const auto& device : gpu.devices)
    info.devices.push_back(
        {.uuid = gpu_uuid(device->uuid),
         .name = device->name,
         .compute_capability =
             fmt::format("{}.{}", device->compute_capability / 10, device->compute_capability % 10),
         .memory_bytes = device->memory_bytes});
  for (const auto& buffer : gpu.buffers)
    info.buffers.push_back(buffer_info(process, info.devices, *buffer));
  return info;
}

}  // namespace

std::vector<ImageInfo::Descriptor> Image::descriptors() const {
  return descriptor_infos(*data_->reader.manifest().process);
}

ImageInfo Image::info() const {
  const ImageReader& reader = data_->reader;
  const state::ProcessT& process = *reader.manifest().process;
  std::uint64_t working_set_pages = 0;
  std::uint64_t working_set_file_pages = 0;
  std::string working_set_problem;
  try {
    if (const auto set = WorkingSet::open(WorkingSet::path_for(data_->path), reader)) {
      working_set_pages = set->pages().size();
      for (const FilePages& run : set->file_pages()) working_set_file_pages += run.pages;
    }
  } catch (const Error& error) {
    working_set_problem = error.what();
  }
  return {
      .major_version = reader.major_version(),
      .minor_version = reader.minor_version(),
      .encoding = reader.page_map().encoding,
      .image_bytes = reader.bytes().size(),
      .stored_pages = reader.page_map().stored_pages,
      .pid = process.pid,
      .name = process.name,
      .executable =
          process.files[static_cast<std::size_t>(process.address_space->executable)]->path,
      .arguments = read_arguments(reader),
      .working_directory = process.working_directory->path,
      .kernel_release = reader.manifest().platform->kernel_release,
      .cpu_baseline = reader.manifest().platform->cpu_baseline,
      .threads = thread_infos(process),
      .mappings = mapping_infos(process, reader.page_map()),
      .descriptors = descriptors(),
      .files = file_infos(process),
      .gpu = gpu_info(process),
      .working_set_pages = working_set_pages,
      .working_set_file_pages = working_set_file_pages,
      .working_set_problem = std::move(working_set_problem),
  };
}

std::uint64_t Image::verify(const ProgressCallback& progress, std::stop_token stop) const {
  data_->file.expect_all();
  Verification{data_->reader, progress, std::move(stop)}.run();
  return data_->reader.page_map().stored_pages;
}

void Image::write_core(const std::filesystem::path& core, const ProgressCallback& progress,
                       std::stop_token stop) const {
  const ImageReader& reader = data_->reader;
  if (reader.page_map().encoding == Encoding::zstd) {
    const std::uint64_t total_bytes = reader.page_map().stored_pages * kPageSize;
    data_->file.expect_all();
    write_decoded(reader, core, {progress, stop, total_bytes});
    return;
  }
  verify(progress, stop);  // a debugger would not notice a damaged page
  copy_image(reader.bytes(), core, {progress, stop, reader.bytes().size()});
}

}  // namespace icecore
