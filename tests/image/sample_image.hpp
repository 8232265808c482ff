// SPDX-License-Identifier: Apache-2.0
#pragma once

// A small process that never ran, and images of it.

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "image/image_writer.hpp"
#include "image/state_generated.h"
#include "memory/page_encoder.hpp"
#include "support/temporary_folder.hpp"

namespace icecore::test {

inline constexpr std::uint64_t kHeap = 0x555555560000;
inline constexpr std::uint64_t kHeapPages = 64;
inline constexpr std::uint64_t kStack = 0x7ffffffdd000;
inline constexpr std::uint64_t kStackPages = 4;

using ::test::TemporaryFolder;

inline std::vector<std::byte> read_file(const std::filesystem::path& path) {
  std::ifstream file{path, std::ios::binary};
  std::vector<std::byte> bytes(std::filesystem::file_size(path));
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file) throw std::runtime_error("cannot read " + path.string());
  return bytes;
}

inline void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  std::ofstream file{path, std::ios::binary};
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw std::runtime_error("cannot write " + path.string());
}

inline std::unique_ptr<state::ThreadT> sample_thread(int tid, const std::string& name) {
  auto thread = std::make_unique<state::ThreadT>();
  thread->tid = tid;
  thread->name = name;
  thread->registers.resize(216);
  thread->registers[16 * 8] = static_cast<std::uint8_t>(tid);  // rip
  const std::int64_t restart = -512;                           // ERESTARTSYS
  std::memcpy(&thread->registers[10 * 8], &restart, 8);        // rax
  thread->registers[15 * 8] = 202;                             // orig_rax: futex
  thread->xstate.resize(832);
  thread->xstate[512] = 7;  // x87, SSE and AVX are in use
  thread->affinity = {3};
  thread->signal_mask = 0x4002;
  return thread;
}

inline state::Mapping anonymous_mapping(std::uint64_t start, std::uint64_t end, int name = -1) {
  return {start, end, 0, 0, 0, -1, name, 3, state::MappingKind::anonymous, false};
}

inline state::Mapping file_mapping(std::uint64_t start, std::uint64_t end, std::uint64_t offset,
                                   std::uint32_t protection, bool shared = false) {
  return {start, end, offset, 0, 0, 0, -1, protection, state::MappingKind::file, shared};
}

inline std::unique_ptr<state::AddressSpaceT> sample_address_space() {
  auto space = std::make_unique<state::AddressSpaceT>();
  space->names = {"[heap]", "[stack]"};
  space->shared_objects.emplace_back(std::uint64_t{2} * kPageSize);
  const std::uint64_t text = 0x555555554000;
  const std::uint64_t shared = 0x7ffff7f00000;
  space->mappings = {
      file_mapping(text, text + 2 * kPageSize, 0, 5),
      file_mapping(text + 2 * kPageSize, text + 3 * kPageSize, kPageSize, 3),
      anonymous_mapping(kHeap, kHeap + kHeapPages * kPageSize, 0),
      {shared, shared + 2 * kPageSize, 0, 0, 0, -1, -1, 3, state::MappingKind::shared_anonymous,
       true},
      file_mapping(shared + 2 * kPageSize, shared + 3 * kPageSize, 0, 3, true),
      anonymous_mapping(kStack, kStack + kStackPages * kPageSize, 1),
  };
  space->auxv.resize(32);
  space->auxv[0] = 6;  // AT_PAGESZ
  space->auxv[9] = 0x10;
  space->start_brk = kHeap;
  space->brk = kHeap + kHeapPages * kPageSize;
  space->start_stack = kStack + 2 * kPageSize;
  space->arg_start = kStack + 3 * kPageSize + 16;
  space->arg_end = space->arg_start + 12;
  space->env_start = space->arg_end;
  space->env_end = space->arg_end;
  return space;
}

inline std::unique_ptr<state::DescriptorsT> sample_descriptors() {
  auto table = std::make_unique<state::DescriptorsT>();
  const auto add = [&](int number, auto open) {
    auto description = std::make_unique<state::DescriptionT>();
    description->open.Set(std::move(open));
    table->descriptors.emplace_back(number, static_cast<std::uint32_t>(table->descriptions.size()),
                                    false);
    table->descriptions.push_back(std::move(description));
  };
  state::ExternalT terminal;
  terminal.what = "terminal /dev/pts/0";
  terminal.standard = true;
  add(0, terminal);
  add(3, state::RegularFileT{});
  state::DirectoryT folder;
  folder.path = "/tmp";
  add(4, folder);
  state::DeviceT null;
  null.path = "/dev/null";
  add(5, null);
  state::PipeT read_end, write_end;
  write_end.write_end = true;
  add(6, read_end);
  add(7, write_end);
  add(9, state::EventFdT{});
  auto pipe = std::make_unique<state::PipeObjectT>();
  pipe->capacity = 65536;
  pipe->contents = {'h', 'i'};
  table->pipes.push_back(std::move(pipe));
  return table;
}

inline std::unique_ptr<state::TimeT> sample_time() {
  auto time = std::make_unique<state::TimeT>();
  time->monotonic_ns = 5'000'000'000;
  time->boottime_ns = 6'000'000'000;
  time->interval_timers = {{1'000'000, 0}, {0, 0}, {2'000'000, 1'000'000}};
  constexpr int kThreadId = 4;  // SIGEV_THREAD_ID
  time->timers = {{7, 8, 9, 1, 1, 34, 0, 0, false}, {7, 0, 9, 4, 7, 35, kThreadId, 4712, true}};
  return time;
}

inline std::unique_ptr<state::CredentialsT> sample_credentials() {
  auto credentials = std::make_unique<state::CredentialsT>();
  credentials->users = {1000, 1000, 1000, 1000};
  credentials->groups = {100, 100, 100, 100};
  credentials->other_groups = {4, 24};
  credentials->permitted = credentials->inheritable = credentials->ambient = 1024;
  return credentials;
}

inline std::unique_ptr<state::SeccompT> sample_seccomp() {
  auto seccomp = std::make_unique<state::SeccompT>();
  auto filter = std::make_unique<state::SeccompFilterT>();
  filter->instructions = {6, 0, 0, 0, 0, 0, 0xff, 0x7f};  // allow
  seccomp->filters.push_back(std::move(filter));
  return seccomp;
}

inline state::ManifestT sample_manifest() {
  state::ManifestT manifest;
  manifest.platform = std::make_unique<state::PlatformT>();
  manifest.platform->kernel_release = "6.18.0";
  manifest.platform->xsave_size = 832;
  manifest.platform->xfeatures = 7;
  manifest.process = std::make_unique<state::ProcessT>();

  state::ProcessT& process = *manifest.process;
  process.pid = 4711;
  process.group = 4711;
  process.session = 4700;
  process.name = "sample";
  process.umask = 022;
  process.working_directory = std::make_unique<state::DirectoryT>();
  process.working_directory->path = "/home";
  process.limits.resize(16);
  auto file = std::make_unique<state::FileT>();
  file->path = "/usr/bin/sample";
  file->size = 20480;
  file->build_id = {0xca, 0xfe};
  process.files.push_back(std::move(file));
  process.address_space = sample_address_space();
  process.threads.push_back(sample_thread(4711, "sample"));
  process.threads.push_back(sample_thread(4712, "worker"));
  process.signals = std::make_unique<state::SignalsT>();
  process.signals->actions.resize(64);
  process.descriptors = sample_descriptors();
  process.time = sample_time();
  process.credentials.push_back(sample_credentials());
  process.seccomp.push_back(sample_seccomp());
  process.threads[1]->credentials = process.threads[1]->seccomp = 0;
  return manifest;
}

/// Without a look at each byte for itself, which takes long with sanitizers.
inline bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

/// Pages of a process, with the addresses that belong to them.
struct Memory {
  std::vector<PageRun> runs;
  std::vector<std::byte> bytes;  // of all runs, back to back

  void add(std::uint64_t address, std::span<const std::byte> pages) {
    runs.push_back({.address = address, .pages = pages.size() / kPageSize});
    bytes.insert(bytes.end(), pages.begin(), pages.end());
  }
};

/// Bytes that zstd cannot make smaller, the same in every run.
inline std::vector<std::byte> random_pages(std::uint64_t pages, unsigned seed) {
  std::mt19937_64 random{seed};
  std::vector<std::byte> bytes(pages * kPageSize);
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    const std::uint64_t word = random();
    std::memcpy(&bytes[i], &word, 8);
  }
  return bytes;
}

/// Bytes that zstd makes much smaller, each page different.
inline std::vector<std::byte> text_pages(std::uint64_t pages) {
  std::vector<std::byte> bytes(pages * kPageSize);
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>('a' + i / kPageSize % 26 + i % 3);
  return bytes;
}

/// Of sample_manifest(): its arguments on the stack, and some pages of heap.
inline Memory sample_memory(std::uint64_t heap_pages = 3) {
  Memory memory;
  memory.add(kHeap, text_pages(heap_pages));
  std::vector<std::byte> stack(kPageSize);
  std::memcpy(&stack[16], "sample\0--go\0", 12);
  memory.add(kStack + 3 * kPageSize, stack);
  return memory;
}

/// Feeds `memory` to an encoder in batches of at most `batch_pages`.
inline void encode(PageEncoder& encoder, const Memory& memory,
                   std::uint64_t batch_pages = PageEncoder::kBatchBytes / kPageSize) {
  std::span<const std::byte> left = memory.bytes;
  std::vector<PageRun> batch;
  std::uint64_t batched = 0;
  const auto submit = [&] {
    if (batched == 0) return;
    std::ranges::copy(left.first(batched * kPageSize), encoder.buffer().begin());
    left = left.subspan(batched * kPageSize);
    encoder.submit(batch);
    batch.clear();
    batched = 0;
  };
  for (PageRun run : memory.runs)
    while (run.pages != 0) {
      const std::uint64_t pages = std::min(run.pages, batch_pages - batched);
      batch.push_back({.address = run.address, .pages = pages});
      batched += pages;
      run = {.address = run.address + pages * kPageSize, .pages = run.pages - pages};
      if (batched == batch_pages) submit();
    }
  submit();
}

inline void write_image(const std::filesystem::path& path, const state::ManifestT& manifest,
                        const Memory& memory, Encoding encoding) {
  ImageWriter writer{path};
  PageEncoder encoder{writer, encoding, 1};
  encode(encoder, memory);
  writer.finish(manifest, encoder.finish());
  writer.commit(false);
}

inline std::vector<std::byte> image_bytes(const state::ManifestT& manifest, const Memory& memory,
                                          Encoding encoding) {
  const TemporaryFolder folder;
  write_image(folder.path() / "image", manifest, memory, encoding);
  return read_file(folder.path() / "image");
}

inline std::vector<std::byte> sample_image(Encoding encoding) {
  return image_bytes(sample_manifest(), sample_memory(), encoding);
}

}  // namespace icecore::test
