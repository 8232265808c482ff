// SPDX-License-Identifier: Apache-2.0
#include "image/manifest_codec.hpp"

#include <cstdint>
#include <cstring>

#include "image/corrupt.hpp"
#include "image/state_generated.h"

namespace icecore {
namespace {

// FlatBuffers cannot go beyond 2 GiB, and only asserts that it does not.
constexpr std::uint64_t kMaxManifestBytes = std::uint64_t{1} << 30;

/// How much memory a verified manifest takes once unpacked.
///
/// A hostile buffer may refer to one string or table from a million places; then a megabyte unpacks
/// to a terabyte.  The writer never shares anything, so what it writes unpacks to little more than
/// its size.  One overload for each table of state.fbs that others refer to.
///
/// It comes by every vector, so it is also where their alignment is checked: the verifier only
/// looks at that of their lengths.
class UnpackedSize {
 public:
  std::uint64_t total() const noexcept { return total_; }

  void add(const flatbuffers::String* string) {
    total_ += sizeof(std::string) + (string == nullptr ? 0 : string->size());
  }

  template <class T>
  void add(const flatbuffers::Vector<T>* scalars) {
    if (scalars != nullptr) add_elements<T>(scalars->Data(), scalars->size());
  }

  template <class T>
  void add(const flatbuffers::Vector<const T*>* structs) {
    if (structs != nullptr) add_elements<T>(structs->Data(), structs->size());
  }

  template <class T>
  void add(const flatbuffers::Vector<flatbuffers::Offset<T>>* items) {
    if (items == nullptr) return;
    for (const T* item : *items) add(item);
  }

  void add(const state::Manifest* manifest) {
    if (const auto* platform = manifest->platform()) add(platform);
    if (const auto* process = manifest->process()) add(process);
  }

 private:
  template <class T>
  void add_elements(const std::uint8_t* data, std::uint64_t count) {
    require(reinterpret_cast<std::uintptr_t>(data) % alignof(T) == 0,
            "its manifest has a vector that is not aligned");
    total_ += count * sizeof(T);
  }

  void add(const state::Platform* platform) {
    add(platform->kernel_release());
    add(platform->xsave_offsets());
    add(platform->cpu_features());
    add(platform->vdso());
    add(platform->cpu_baseline());
  }

  void add(const state::Process* process) {
    add(process->name());
    add(process->limits());
    add(process->files());
    add(process->threads());
    if (const auto* directory = process->working_directory()) add(directory->path());
    if (const auto* space = process->address_space()) add(space);
    if (const auto* signals = process->signals()) add(signals->pending()), add(signals->actions());
    if (const auto* descriptors = process->descriptors()) add(descriptors);
    add(process->credentials());
    add(process->seccomp());
    if (const auto* time = process->time()) add(time->interval_timers()), add(time->timers());
    add(process->security_label());
    if (const auto* gpu = process->gpu()) add(gpu);
    if (const auto* terminal = process->terminal()) add(terminal->settings());
  }

  void add(const state::Gpu* gpu) {
    total_ += sizeof(state::GpuT);
    add(gpu->driver_release());
    add(gpu->devices());
    if (const auto* buffers = gpu->buffers()) total_ += buffers->size() * sizeof(state::GpuBufferT);
  }

  void add(const state::GpuDevice* device) {
    total_ += sizeof(state::GpuDeviceT);
    add(device->uuid());
    add(device->name());
  }

  void add(const state::AddressSpace* space) {
    add(space->mappings());
    add(space->names());
    add(space->shared_objects());
    add(space->auxv());
    add(space->guards());
    if (const auto* segments = space->segments())
      total_ += segments->size() * sizeof(state::SegmentT);
    add(space->holes());
    add(space->policies());
  }

  void add(const state::MemoryPolicy* policy) {
    total_ += sizeof(state::MemoryPolicyT);
    add(policy->nodes());
  }

  void add(const state::File* file) {
    total_ += sizeof(state::FileT);
    add(file->path());
    add(file->build_id());
    if (file->kept() != nullptr) total_ += sizeof(state::KeptFileT);
  }

  void add(const state::Thread* thread) {
    total_ += sizeof(state::ThreadT);
    add(thread->name());
    add(thread->registers());
    add(thread->xstate());
    add(thread->pending());
    add(thread->affinity());
    add(thread->memory_nodes());
    add(thread->tls_slots());
  }

  void add(const state::Credentials* credentials) {
    total_ += sizeof(state::CredentialsT);
    add(credentials->users());
    add(credentials->groups());
    add(credentials->other_groups());
  }

  void add(const state::Seccomp* seccomp) {
    total_ += sizeof(state::SeccompT);
    add(seccomp->filters());
  }

  void add(const state::SeccompFilter* filter) {
    total_ += sizeof(state::SeccompFilterT);
    add(filter->instructions());
  }

  void add(const state::Descriptors* descriptors) {
    add(descriptors->descriptors());
    add(descriptors->descriptions());
    add(descriptors->pipes());
    add(descriptors->sockets());
    add(descriptors->ptys());
  }

  void add(const state::SocketObject* socket) {
    total_ += sizeof(state::SocketObjectT);
    add(socket->local());
    add(socket->remote());
    add(socket->options());
    add(socket->messages());
    add(socket->groups());
    add(socket->received());
    add(socket->memberships());
    add(socket->waiting());
  }

  void add(const state::Membership* membership) {
    total_ += sizeof(state::MembershipT);
    add(membership->interface());
    add(membership->group());
    add(membership->sources());
  }

  void add(const state::SocketOption* option) {
    total_ += sizeof(state::SocketOptionT);
    add(option->value());
  }

  void add(const state::SocketMessage* message) {
    total_ += sizeof(state::SocketMessageT);
    add(message->bytes());
    add(message->from());
    add(message->descriptors());
  }

  void add(const state::Description* description) {
    total_ += sizeof(state::DescriptionT);
    add(description->locks());
    if (const auto* place = description->open_as_PathOnly()) add(place->path());
    if (const auto* file = description->open_as_KernelFile()) add(file->path());
    if (const auto* fifo = description->open_as_Fifo()) add(fifo->path());
    if (const auto* directory = description->open_as_Directory()) add(directory->path());
    if (const auto* device = description->open_as_Device()) add(device->path());
    if (const auto* external = description->open_as_External()) add(external->what());
    if (const auto* epoll = description->open_as_Epoll()) add(epoll->watches());
    if (const auto* inotify = description->open_as_Inotify()) add(inotify->watches());
  }

  void add(const state::InotifyWatch* watch) {
    total_ += sizeof(state::InotifyWatchT);
    add(watch->path());
  }

  void add(const state::PtyObject* pty) {
    total_ += sizeof(state::PtyObjectT);
    add(pty->settings());
    add(pty->input());
    add(pty->lines());
    add(pty->output());
  }

  void add(const state::PipeObject* pipe) {
    total_ += sizeof(state::PipeObjectT);
    add(pipe->contents());
    add(pipe->packets());
  }

  std::uint64_t total_ = 0;
};

void verify(std::span<const std::byte> bytes) {
  require(bytes.size() <= kMaxManifestBytes, "a manifest of {} bytes", bytes.size());
  constexpr flatbuffers::uoffset_t kMaxDepth = 16;
  // No table is smaller than its own header and the reference to it.
  const auto max_tables = static_cast<flatbuffers::uoffset_t>(bytes.size() / 8 + 1);
  flatbuffers::Verifier verifier{reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size(),
                                 kMaxDepth, max_tables};
  require(state::VerifyManifestBuffer(verifier), "its manifest is not well-formed");
}

// FlatBuffers reads its numbers where they lie, so the whole must be aligned.
bool is_aligned(std::span<const std::byte> bytes) {
  return reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(std::uint64_t) == 0;
}

// Most of what can be large: other parts are bounded by the kernel, far below the limit.
std::uint64_t rough_size(const state::ManifestT& manifest) {
  std::uint64_t size_bytes = 0;
  const state::ProcessT& process = *manifest.process;
  size_bytes += process.address_space->mappings.size() * sizeof(state::Mapping);
  for (const auto& policy : process.address_space->policies)
    size_bytes += policy->nodes.size() * 8 + 64;
  for (const auto& pipe : process.descriptors->pipes) size_bytes += pipe->contents.size() + 64;
  for (const auto& socket : process.descriptors->sockets)
    for (const auto& message : socket->messages) size_bytes += message->bytes.size() + 256;
  for (const auto& thread : process.threads)
    size_bytes += thread->xstate.size() + thread->pending.size() + 1024;
  return size_bytes + process.descriptors->descriptions.size() * 128;
}

}  // namespace

std::vector<std::byte> encode_manifest(const state::ManifestT& manifest) {
  const std::uint64_t size_bytes = rough_size(manifest);
  if (size_bytes > kMaxManifestBytes / 2)
    throw Error{Errc::unsupported,
                "the process is too large: threads and pipe contents exceed 512 MiB"};
  flatbuffers::FlatBufferBuilder builder{size_bytes + (std::size_t{64} << 10)};
  builder.Finish(state::Manifest::Pack(builder, &manifest));
  const auto packed = std::as_bytes(std::span{builder.GetBufferPointer(), builder.GetSize()});
  return {packed.begin(), packed.end()};
}

std::unique_ptr<const state::ManifestT> decode_manifest(std::span<const std::byte> bytes) {
  std::vector<std::byte> copy;
  if (!is_aligned(bytes)) {
    copy.assign(bytes.begin(), bytes.end());
    bytes = copy;
  }
  verify(bytes);
  const state::Manifest* const manifest = state::GetManifest(bytes.data());
  UnpackedSize unpacked;
  unpacked.add(manifest);
  require(unpacked.total() / 4 <= bytes.size() + (std::size_t{64} << 10) / 4,
          "its manifest of {} bytes would unpack to {}", bytes.size(), unpacked.total());
  return std::unique_ptr<const state::ManifestT>{manifest->UnPack()};
}

}  // namespace icecore
