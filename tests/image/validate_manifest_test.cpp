// SPDX-License-Identifier: Apache-2.0
#include "image/validate_manifest.hpp"

#include <catch2/catch.hpp>

#include "image/failure.hpp"
#include "image/sample_image.hpp"

namespace icecore::test::validate_manifest_test {

using state::ManifestT;
using state::Mapping;
using state::MappingKind;

constexpr std::uint64_t kFree =
    0x600000000000;  // an address between the sample's heap and libraries

PageMap page_map(std::vector<PageRun> runs) {
  PageMap map;
  map.runs = std::move(runs);
  return map;
}

struct Case {
  std::string why;
  void (*change)(ManifestT&);
};

void check_refused(const Case& test) {
  ManifestT manifest = sample_manifest();
  validate_manifest(manifest, {});
  test.change(manifest);
  const auto failure = failure_of([&] { validate_manifest(manifest, {}); });
  INFO(test.why);
  REQUIRE(failure);
  CHECK(failure->code() == Errc::corrupt_image);
  CHECK_THAT(failure->what(), Catch::Matchers::Contains(test.why));
}

/// Puts `mapping` where its address belongs.
void insert(ManifestT& manifest, const Mapping& mapping) {
  auto& mappings = manifest.process->address_space->mappings;
  mappings.insert(mappings.begin() + 3, mapping);
}

Mapping mapping_of(MappingKind kind, bool shared, std::uint64_t object, int file) {
  return {kFree, kFree + kPageSize, 0, object, 0, file, -1, 3, kind, shared};
}

TEST_CASE("a manifest with parts missing is refused", "[image][damage]") {
  check_refused(GENERATE(values<Case>({
      {"no platform", [](ManifestT& m) { m.platform = nullptr; }},
      {"no process", [](ManifestT& m) { m.process = nullptr; }},
      {"no working directory", [](ManifestT& m) { m.process->working_directory = nullptr; }},
      {"no address space", [](ManifestT& m) { m.process->address_space = nullptr; }},
      {"no signals", [](ManifestT& m) { m.process->signals = nullptr; }},
      {"no descriptors", [](ManifestT& m) { m.process->descriptors = nullptr; }},
      {"absent file", [](ManifestT& m) { m.process->files.emplace_back(); }},
      {"absent thread", [](ManifestT& m) { m.process->threads.emplace_back(); }},
      {"absent description",
       [](ManifestT& m) { m.process->descriptors->descriptions.emplace_back(); }},
      {"absent pipe", [](ManifestT& m) { m.process->descriptors->pipes.emplace_back(); }},
      {"without threads", [](ManifestT& m) { m.process->threads.clear(); }},
  })));
}

TEST_CASE("a hostile process is refused", "[image][damage]") {
  check_refused(GENERATE(values<Case>({
      {"process 0", [](ManifestT& m) { m.process->pid = 0; }},
      {"process 4711", [](ManifestT& m) { m.process->group = -1; }},
      {"process 4711", [](ManifestT& m) { m.process->session = -1; }},
      {"umask", [](ManifestT& m) { m.process->umask = 01000; }},
      {"15 resource limits", [](ManifestT& m) { m.process->limits.pop_back(); }},
      {"task name", [](ManifestT& m) { m.process->name = "sixteen letters."; }},
      {"working directory", [](ManifestT& m) { m.process->working_directory->path = "tmp"; }},
      {"working directory", [](ManifestT& m) { m.process->working_directory->path.clear(); }},
      {"NUL", [](ManifestT& m) { m.process->working_directory->path += '\0'; }},
      {"path of a file", [](ManifestT& m) { m.process->files[0]->path = "bin/x"; }},
      {"NUL", [](ManifestT& m) { m.process->files[0]->path[3] = '\0'; }},
      {"63 signal actions", [](ManifestT& m) { m.process->signals->actions.pop_back(); }},
      {"pending", [](ManifestT& m) { m.process->signals->pending.resize(127); }},
      {"XSAVE components", [](ManifestT& m) { m.platform->xsave_offsets.resize(65); }},
  })));
}

TEST_CASE("hostile threads are refused", "[image][damage]") {
  check_refused(GENERATE(values<Case>({
      {"leads", [](ManifestT& m) { std::swap(m.process->threads[0], m.process->threads[1]); }},
      {"two threads", [](ManifestT& m) { m.process->threads[1]->tid = 4711; }},
      {"a thread 0", [](ManifestT& m) { m.process->threads[1]->tid = 0; }},
      {"a thread -1", [](ManifestT& m) { m.process->threads[1]->tid = -1; }},
      {"registers", [](ManifestT& m) { m.process->threads[1]->registers.resize(215); }},
      {"extended state", [](ManifestT& m) { m.process->threads[1]->xstate.resize(568); }},
      {"extended state", [](ManifestT& m) { m.process->threads[1]->xstate.resize(833); }},
      {"extended state", [](ManifestT& m) { m.process->threads[1]->xstate.resize(65544); }},
      {"extended state", [](ManifestT& m) { m.process->threads[1]->xstate.clear(); }},
      {"XSAVE header", [](ManifestT& m) { m.process->threads[1]->xstate[520] = 1; }},
      {"XSAVE header", [](ManifestT& m) { m.process->threads[1]->xstate[575] = 1; }},
      {"task name", [](ManifestT& m) { m.process->threads[1]->name += '\0'; }},
      {"pending", [](ManifestT& m) { m.process->threads[1]->pending.resize(129); }},
      {"bytes of segments", [](ManifestT& m) { m.process->threads[1]->tls_slots.resize(15); }},
      {"bytes of segments", [](ManifestT& m) { m.process->threads[1]->tls_slots.resize(64); }},
      {"CPU mask", [](ManifestT& m) { m.process->threads[1]->affinity.resize(1025); }},
  })));
}

std::uint64_t bit(state::MappingFlag flag) { return static_cast<std::uint64_t>(flag); }

Mapping special_mapping(std::uint64_t end, std::uint64_t flags,
                        MappingKind kind = MappingKind::anonymous) {
  const bool shared = kind == MappingKind::shared_anonymous;
  return {kFree, end, 0, 0, flags, -1, -1, 3, kind, shared};
}

state::GpuT& gpu(ManifestT& manifest) {
  auto& gpu = manifest.process->gpu;
  gpu = std::make_unique<state::GpuT>();
  gpu->restore_thread = manifest.process->threads[0]->tid;
  auto device = std::make_unique<state::GpuDeviceT>();
  device->uuid.resize(16);
  gpu->devices.push_back(std::move(device));
  return *gpu;
}

/// Whose contents are in the first anonymous mapping.
state::GpuBufferT& buffer(ManifestT& manifest) {
  auto made = std::make_unique<state::GpuBufferT>();
  made->address = 0x302000000;
  made->size = made->contents_size = kPageSize;
  const auto& mappings = manifest.process->address_space->mappings;
  made->carrier = std::ranges::find(mappings, MappingKind::anonymous, [](const Mapping& m) {
                    return m.kind();
                  })->start();
  gpu(manifest).buffers.push_back(std::move(made));
  return *manifest.process->gpu->buffers[0];
}

TEST_CASE("a process with GPUs is accepted", "[image]") {
  ManifestT manifest = sample_manifest();
  buffer(manifest);
  manifest.process->address_space->holes.emplace_back(kFree, kFree + kPageSize);
  validate_manifest(manifest, {});
}

TEST_CASE("hostile GPUs are refused", "[image][damage]") {
  using state::MappingFlag;
  check_refused(GENERATE(values<Case>({
      {"state of GPUs", [](ManifestT& m) { gpu(m).state_found = static_cast<state::GpuState>(3); }},
      {"thread 1,", [](ManifestT& m) { gpu(m).restore_thread = 1; }},
      {"driver's version", [](ManifestT& m) { gpu(m).driver_release = std::string(1, '\0'); }},
      {"GPU without a name", [](ManifestT& m) { gpu(m).devices[0]->uuid.pop_back(); }},
      {"GPU without a name", [](ManifestT& m) { gpu(m).devices.emplace_back(); }},
      {"GPU without a name", [](ManifestT& m) { gpu(m).devices[0]->name = std::string(1, '\0'); }},
      {"absent buffer", [](ManifestT& m) { buffer(m), m.process->gpu->buffers.emplace_back(); }},
      {"buffer in a GPU at 0x0", [](ManifestT& m) { buffer(m).address = 0; }},
      {"of 0 bytes", [](ManifestT& m) { buffer(m).size = 0; }},
      {"buffer in a GPU at", [](ManifestT& m) { buffer(m).contents_size = kPageSize + 1; }},
      {"buffer in GPU 1", [](ManifestT& m) { buffer(m).device = 1; }},
      {"unknown contents",
       [](ManifestT& m) { buffer(m).contents = static_cast<state::GpuContents>(3); }},
      {"descriptor 1000",
       [](ManifestT& m) {
         buffer(m).contents = state::GpuContents::file;
         m.process->gpu->buffers[0]->file = 1000;
       }},
      {"bytes of the buffer", [](ManifestT& m) { buffer(m).carrier = kFree; }},
      {"a hole", [](ManifestT& m) { m.process->address_space->holes.emplace_back(kFree, kFree); }},
      {"a hole", [](ManifestT& m) { m.process->address_space->holes.emplace_back(1, kFree); }},
      {"of GPU data",
       [](ManifestT& m) {
         insert(m,
                {kFree, kFree + kPageSize, 0, 0, static_cast<std::uint64_t>(MappingFlag::gpu_data),
                 0, -1, 3, MappingKind::file, false});
       }},
  })));
}

void guard(ManifestT& manifest, std::uint64_t start, std::uint64_t end) {
  manifest.process->address_space->guards.emplace_back(start, end);
}

state::MemoryPolicyT& policy(ManifestT& manifest, std::uint64_t start, std::uint64_t end) {
  auto& policies = manifest.process->address_space->policies;
  policies.push_back(std::make_unique<state::MemoryPolicyT>());
  policies.back()->start = start;
  policies.back()->end = end;
  return *policies.back();
}

TEST_CASE("hostile memory policies are refused", "[image][damage]") {
  check_refused(GENERATE(values<Case>({
      {"absent memory policy",
       [](ManifestT& m) { m.process->address_space->policies.emplace_back(); }},
      {"of no mapping", [](ManifestT& m) { policy(m, kFree, kFree + kPageSize); }},
      {"of no mapping", [](ManifestT& m) { policy(m, kHeap, kHeap + (1 << 30)); }},
      {"memory policy at", [](ManifestT& m) { policy(m, kHeap, kHeap); }},
      {"memory policy at", [](ManifestT& m) { policy(m, kHeap + 1, kHeap + kPageSize); }},
      {"memory policy at",
       [](ManifestT& m) {
         policy(m, kHeap, kHeap + kPageSize);
         policy(m, kHeap, kHeap + kPageSize);
       }},
      {"words of nodes",
       [](ManifestT& m) { policy(m, kHeap, kHeap + kPageSize).nodes.resize(17); }},
  })));
}

TEST_CASE("hostile memory of rare kinds is refused", "[image][damage]") {
  using state::MappingFlag;
  check_refused(GENERATE(values<Case>({
      {"is droppable",
       [](ManifestT& m) {
         insert(m, special_mapping(kFree + kPageSize, bit(MappingFlag::droppable),
                                   MappingKind::shared_anonymous));
       }},
      {"has huge pages",
       [](ManifestT& m) {
         insert(m, special_mapping(kFree + kPageSize, bit(MappingFlag::huge_2m)));
       }},
      {"has huge pages",
       [](ManifestT& m) {
         insert(m, special_mapping(kFree + (2 << 20), bit(MappingFlag::huge_1g)));
       }},
      {"pages of two sizes",
       [](ManifestT& m) {
         insert(m, special_mapping(kFree + (1 << 30),
                                   bit(MappingFlag::huge_2m) | bit(MappingFlag::huge_1g)));
       }},
      {"in no mapping", [](ManifestT& m) { guard(m, kFree, kFree + kPageSize); }},
      {"in no mapping", [](ManifestT& m) { guard(m, kHeap, kHeap + (1 << 30)); }},
      {"guard region", [](ManifestT& m) { guard(m, kHeap, kHeap); }},
      {"guard region", [](ManifestT& m) { guard(m, kHeap + 1, kHeap + kPageSize); }},
      {"guard region",
       [](ManifestT& m) {
         guard(m, kHeap, kHeap + kPageSize);
         guard(m, kHeap, kHeap + kPageSize);
       }},
      {"unknown way",
       [](ManifestT& m) {
         m.process->address_space->new_memory = static_cast<state::NewMemory>(3);
       }},
  })));
}

TEST_CASE("hostile mappings are refused", "[image][damage]") {
  check_refused(GENERATE(values<Case>({
      {"page-aligned",
       [](ManifestT& m) { insert(m, anonymous_mapping(kFree + 1, kFree + kPageSize)); }},
      {"page-aligned", [](ManifestT& m) { insert(m, anonymous_mapping(kFree, kFree + 1)); }},
      {"page-aligned",
       [](ManifestT& m) { insert(m, file_mapping(kFree, kFree + kPageSize, 512, 1)); }},
      {"ends at", [](ManifestT& m) { insert(m, anonymous_mapping(kFree, kFree)); }},
      {"ends at", [](ManifestT& m) { insert(m, anonymous_mapping(kFree, kFree - kPageSize)); }},
      {"ends at",
       [](ManifestT& m) {
         m.process->address_space->mappings.push_back(
             anonymous_mapping(0x7fffffffe000, 0x800000000000));
       }},
      {"of offset",
       [](ManifestT& m) {
         insert(m,
                file_mapping(kFree, kFree + 2 * kPageSize, INT64_MAX / kPageSize * kPageSize, 1));
       }},
      {"of offset",
       [](ManifestT& m) { insert(m, file_mapping(kFree, kFree + kPageSize, -kPageSize, 1)); }},
      {"out of order",
       [](ManifestT& m) { insert(m, anonymous_mapping(kPageSize, 2 * kPageSize)); }},
      {"out of order",
       [](ManifestT& m) {
         insert(m, anonymous_mapping(kHeap + kPageSize, kHeap + 2 * kPageSize));
       }},
      {"protection", [](ManifestT& m) { insert(m, file_mapping(kFree, kFree + kPageSize, 0, 8)); }},
      {"flags",
       [](ManifestT& m) {
         insert(m, {kFree, kFree + kPageSize, 0, 0, 1u << 20, -1, -1, 3, MappingKind::anonymous,
                    false});
       }},
      {"unknown kind",
       [](ManifestT& m) { insert(m, mapping_of(static_cast<MappingKind>(9), false, 0, -1)); }},
      {"of file 1 of 1",
       [](ManifestT& m) { insert(m, mapping_of(MappingKind::file, false, 0, 1)); }},
      {"of file -1", [](ManifestT& m) { insert(m, mapping_of(MappingKind::file, false, 0, -1)); }},
      {"names one",
       [](ManifestT& m) { insert(m, mapping_of(MappingKind::anonymous, false, 0, 0)); }},
      {"private and shared",
       [](ManifestT& m) { insert(m, mapping_of(MappingKind::anonymous, true, 0, -1)); }},
      {"but private",
       [](ManifestT& m) { insert(m, mapping_of(MappingKind::shared_anonymous, false, 0, -1)); }},
      {"shared object 1",
       [](ManifestT& m) { insert(m, mapping_of(MappingKind::shared_anonymous, true, 1, -1)); }},
      {"of name 2",
       [](ManifestT& m) { insert(m, anonymous_mapping(kFree, kFree + kPageSize, 2)); }},
      {"of name -2",
       [](ManifestT& m) { insert(m, anonymous_mapping(kFree, kFree + kPageSize, -2)); }},
      {"NUL", [](ManifestT& m) { m.process->address_space->names[0] += '\0'; }},
      {"auxiliary vector", [](ManifestT& m) { m.process->address_space->auxv.resize(33); }},
      {"auxiliary vector", [](ManifestT& m) { m.process->address_space->auxv.resize(8192); }},
      {"executable", [](ManifestT& m) { m.process->address_space->executable = 1; }},
      {"executable", [](ManifestT& m) { m.process->address_space->executable = -1; }},
      {"not the program's", [](ManifestT& m) { m.process->address_space->brk = UINT64_MAX; }},
      {"arguments", [](ManifestT& m) { m.process->address_space->arg_start = kStack * 2; }},
      {"arguments", [](ManifestT& m) { m.process->address_space->arg_end = 0; }},
      {"environment", [](ManifestT& m) { m.process->address_space->env_end = UINT64_MAX; }},
  })));
}

/// Two files after the sample's own; the contents of the second end in the middle of a page.
void add_kept_files(ManifestT& manifest) {
  for (const std::uint64_t place : {0U, 3U}) {
    auto file = std::make_unique<state::FileT>();
    file->path = "/memfd:a name";
    file->mode = 0100644;
    file->size = 2 * kPageSize - 1;
    file->kept = std::make_unique<state::KeptFileT>();
    file->kept->kind = state::KeptKind::memory;
    file->kept->first_page = kFilePagesStart + place * kPageSize;
    manifest.process->files.push_back(std::move(file));
  }
}

TEST_CASE("hostile kept files are refused", "[image][damage]") {
  const Case test = GENERATE(values<Case>({
      {"bytes of a file at", [](ManifestT& m) { m.process->files[1]->kept->first_page = kFree; }},
      {"bytes of a file at", [](ManifestT& m) { m.process->files[1]->kept->first_page += 1; }},
      {"bytes of a file at",
       [](ManifestT& m) { m.process->files[2]->kept->first_page = kFilePagesEnd; }},
      {"bytes of a file at", [](ManifestT& m) { m.process->files[1]->size = UINT64_MAX; }},
      {"bytes of a file at", [](ManifestT& m) { m.process->files[1]->size += kPageSize; }},
      {"bytes of a file at",
       [](ManifestT& m) { std::swap(m.process->files[1], m.process->files[2]); }},
      {"no regular file", [](ManifestT& m) { m.process->files[1]->mode = 020644; }},
      {"seals", [](ManifestT& m) { m.process->files[1]->kept->seals = 0x40; }},
      {"but sealed",
       [](ManifestT& m) {
         m.process->files[1]->kept->kind = state::KeptKind::unlinked;
         m.process->files[1]->kept->seals = 1;
       }},
      {"no name of a memfd", [](ManifestT& m) { m.process->files[1]->path = "/memfd"; }},
      {"no name of a memfd",
       [](ManifestT& m) { m.process->files[1]->path += std::string(250, 'x'); }},
      {"unknown way",
       [](ManifestT& m) { m.process->files[1]->kept->kind = static_cast<state::KeptKind>(7); }},
  }));
  ManifestT manifest = sample_manifest();
  add_kept_files(manifest);
  validate_manifest(manifest, {});
  test.change(manifest);
  const auto failure = failure_of([&] { validate_manifest(manifest, {}); });
  INFO(test.why);
  REQUIRE(failure);
  CHECK(failure->code() == Errc::corrupt_image);
  CHECK_THAT(failure->what(), Catch::Matchers::Contains(test.why));
}

TEST_CASE("a manifest with credentials that no process has is refused", "[image][damage]") {
  check_refused(GENERATE(values<Case>({
      {"absent credentials", [](ManifestT& m) { m.process->credentials[0] = nullptr; }},
      {"of 3 users", [](ManifestT& m) { m.process->credentials[0]->users.pop_back(); }},
      {"4 users and 0 groups", [](ManifestT& m) { m.process->credentials[0]->groups.clear(); }},
      {"credentials of 4",
       [](ManifestT& m) { m.process->credentials[0]->other_groups.resize(65537); }},
      {"capabilities that no",
       [](ManifestT& m) { m.process->credentials[0]->effective = 1 << 21; }},
      {"capabilities that no", [](ManifestT& m) { m.process->credentials[0]->ambient = 3; }},
      {"thread of credentials 1", [](ManifestT& m) { m.process->threads[0]->credentials = 1; }},
      {"thread of credentials -2", [](ManifestT& m) { m.process->threads[0]->credentials = -2; }},
      {"label", [](ManifestT& m) { m.process->security_label = std::string("a\0b", 3); }},
  })));
}

TEST_CASE("a manifest with impossible seccomp is refused", "[image][damage]") {
  check_refused(GENERATE(values<Case>({
      {"absent seccomp", [](ManifestT& m) { m.process->seccomp[0] = nullptr; }},
      {"with 1 filters", [](ManifestT& m) { m.process->seccomp[0]->strict = true; }},
      {"with 0 filters", [](ManifestT& m) { m.process->seccomp[0]->filters.clear(); }},
      {"absent seccomp filter", [](ManifestT& m) { m.process->seccomp[0]->filters[0] = nullptr; }},
      {"of 9 bytes",
       [](ManifestT& m) { m.process->seccomp[0]->filters[0]->instructions.resize(9); }},
      {"of 0 bytes", [](ManifestT& m) { m.process->seccomp[0]->filters[0]->instructions.clear(); }},
      {"of 32776 bytes",
       [](ManifestT& m) { m.process->seccomp[0]->filters[0]->instructions.resize(32776); }},
      {"thread of seccomp 1", [](ManifestT& m) { m.process->threads[0]->seccomp = 1; }},
      {"words of memory nodes",
       [](ManifestT& m) { m.process->threads[0]->memory_nodes.resize(17); }},
  })));
}

TEST_CASE("a manifest with impossible timers is refused", "[image][damage]") {
  check_refused(GENERATE(values<Case>({
      {"clocks at -1", [](ManifestT& m) { m.process->time->monotonic_ns = -1; }},
      {"clocks at", [](ManifestT& m) { m.process->time->boottime_ns = INT64_MAX; }},
      {"2 interval timers", [](ManifestT& m) { m.process->time->interval_timers.pop_back(); }},
      {"runs too long",
       [](ManifestT& m) {
         m.process->time->interval_timers[0] = {UINT64_MAX, 0};
       }},
      {"runs too long",
       [](ManifestT& m) {
         m.process->time->timers[0] = {UINT64_MAX, 0, 0, 1, 1, 34, 0, 0, false};
       }},
      {"out of order",
       [](ManifestT& m) { m.process->time->timers[0] = {1, 0, 0, 4, 1, 34, 0, 0, false}; }},
      {"out of order",
       [](ManifestT& m) { m.process->time->timers[0] = {1, 0, 0, -1, 1, 34, 0, 0, false}; }},
      {"notifies by 8",
       [](ManifestT& m) { m.process->time->timers[0] = {1, 0, 0, 1, 1, 34, 8, 0, false}; }},
      {"signals thread 99",
       [](ManifestT& m) { m.process->time->timers[0] = {1, 0, 0, 1, 1, 34, 4, 99, false}; }},
  })));
}

TEST_CASE("stored pages of files lie in files that are kept", "[image][damage]") {
  ManifestT manifest = sample_manifest();
  add_kept_files(manifest);
  const auto check = [&](std::uint64_t page, std::uint64_t pages) {
    return failure_of([&] {
      validate_manifest(
          manifest, page_map({{.address = kHeap, .pages = 1},
                              {.address = kFilePagesStart + page * kPageSize, .pages = pages}}));
    });
  };
  CHECK_FALSE(check(0, 2));
  CHECK_FALSE(check(3, 2));
  CHECK(check(0, 3));
  CHECK(check(2, 1));
  CHECK(check(4, 2));
  CHECK(check(UINT64_MAX, 2));
  CHECK(check(100, 1));
}

TEST_CASE("hostile descriptors are refused", "[image][damage]") {
  check_refused(GENERATE(values<Case>({
      {"out of order",
       [](ManifestT& m) { m.process->descriptors->descriptors.emplace_back(9, 0, false); }},
      {"out of order",
       [](ManifestT& m) {
         auto& table = m.process->descriptors->descriptors;
         table.insert(table.begin(), state::Descriptor(-1, 0, false));
       }},
      {"out of order",
       [](ManifestT& m) { m.process->descriptors->descriptors.emplace_back(1 << 20, 0, false); }},
      {"of description 7 of 7",
       [](ManifestT& m) { m.process->descriptors->descriptors.emplace_back(10, 7, false); }},
      {"of nothing", [](ManifestT& m) { m.process->descriptors->descriptions[0]->open.Reset(); }},
      {"of file 1",
       [](ManifestT& m) {
         m.process->descriptors->descriptions[1]->open.AsRegularFile()->file = 1;
       }},
      {"path of a directory",
       [](ManifestT& m) {
         m.process->descriptors->descriptions[2]->open.AsDirectory()->path = "here";
       }},
      {"path of a device",
       [](ManifestT& m) {
         m.process->descriptors->descriptions[3]->open.AsDevice()->path = "here";
       }},
      {"of pipe 1",
       [](ManifestT& m) { m.process->descriptors->descriptions[4]->open.AsPipe()->pipe = 1; }},
      {"of pipe -1",
       [](ManifestT& m) { m.process->descriptors->descriptions[5]->open.AsPipe()->pipe = -1; }},
      {"holds 2", [](ManifestT& m) { m.process->descriptors->pipes[0]->capacity = 1; }},
      {"packet of 0",
       [](ManifestT& m) {
         m.process->descriptors->pipes[0]->packets = {2, 0};
       }},
      {"packet of 4097", [](ManifestT& m) { m.process->descriptors->pipes[0]->packets = {4097}; }},
      {"packets of 3",
       [](ManifestT& m) {
         m.process->descriptors->pipes[0]->packets = {2, 1};
       }},
      {"lock of unknown kind",
       [](ManifestT& m) {
         m.process->descriptors->descriptions[1]->locks.emplace_back(
             0, 1, static_cast<state::LockKind>(4), true);
       }},
      {"lock from 2 to 1",
       [](ManifestT& m) {
         m.process->descriptors->descriptions[1]->locks.emplace_back(2, 1, state::LockKind::flock,
                                                                     true);
       }},
      {"unknown kind of owner",
       [](ManifestT& m) {
         m.process->descriptors->descriptions[1]->owner = static_cast<state::SignalOwner>(4);
       }},
      {"for thread",
       [](ManifestT& m) {
         m.process->descriptors->descriptions[1]->owner = state::SignalOwner::thread;
         m.process->descriptors->descriptions[1]->owner_thread = 1000;
       }},
      {"signal 65",
       [](ManifestT& m) { m.process->descriptors->descriptions[1]->owner_signal = 65; }},
  })));
}

TEST_CASE("a descriptor of a kind from the future is refused", "[image][damage]") {
  ManifestT manifest = sample_manifest();
  state::OpenUnion& open = manifest.process->descriptors->descriptions[6]->open;
  const state::Open before = std::exchange(open.type, static_cast<state::Open>(99));
  const auto failure = failure_of([&] { validate_manifest(manifest, {}); });
  open.type = before;  // by which its destructor goes
  REQUIRE(failure);
  CHECK_THAT(failure->what(), Catch::Matchers::Contains("unknown kind"));
}

TEST_CASE("stored pages lie in memory of the process's own", "[image][damage]") {
  const ManifestT manifest = sample_manifest();
  const std::uint64_t private_file = 0x555555556000;
  const std::uint64_t shared_memory = 0x7ffff7f00000;
  const auto check_mapped = [&](std::uint64_t address, std::uint64_t pages) {
    validate_manifest(manifest, page_map({{.address = address, .pages = pages}}));
  };
  const auto check_not_mapped = [&](std::uint64_t address, std::uint64_t pages) {
    CHECK(failure_of([&] { check_mapped(address, pages); }));
  };
  check_mapped(kHeap, kHeapPages);
  check_mapped(private_file, 1);
  check_mapped(private_file - kPageSize, 2);  // across two mappings that touch
  check_mapped(shared_memory, 2);
  check_not_mapped(shared_memory, 3);  // the third is of a shared file
  check_not_mapped(kHeap, kHeapPages + 1);
  check_not_mapped(kHeap - kPageSize, 2);
  check_not_mapped(kFree, 1);
  check_not_mapped(kStack + kStackPages * kPageSize, 1);  // behind the last mapping
}

state::SegmentT& add_segment(ManifestT& manifest, std::uint64_t size) {
  auto& space = *manifest.process->address_space;
  space.shared_objects.emplace_back(2 * kPageSize);
  space.segments.push_back(std::make_unique<state::SegmentT>());
  space.segments.back()->object = static_cast<std::uint32_t>(space.shared_objects.size() - 1);
  space.segments.back()->size = size;
  return *space.segments.back();
}

TEST_CASE("a segment of shared memory that cannot be is refused", "[image][damage]") {
  ManifestT manifest = sample_manifest();
  add_segment(manifest, kPageSize + 1);
  validate_manifest(manifest, {});
  check_refused(GENERATE(values<Case>({
      {"segment of shared object", [](ManifestT& m) { add_segment(m, 5000).object = 77; }},
      {"has 8193 bytes", [](ManifestT& m) { add_segment(m, 2 * kPageSize + 1); }},
      {"has 4096 bytes", [](ManifestT& m) { add_segment(m, kPageSize); }},
      {"of mode 04000", [](ManifestT& m) { add_segment(m, 5000).mode = 04000; }},
      {"absent segment", [](ManifestT& m) { m.process->address_space->segments.emplace_back(); }},
      {"two segments are one",
       [](ManifestT& m) {
         const auto object = add_segment(m, 5000).object;
         add_segment(m, 5000).object = object;
       }},
  })));
}

void add_watch(ManifestT& manifest, int descriptor, const std::string& path) {
  auto& descriptions = manifest.process->descriptors->descriptions;
  if (descriptions.empty() || descriptions.back()->open.type != state::Open::Inotify) {
    descriptions.push_back(std::make_unique<state::DescriptionT>());
    descriptions.back()->open.Set(state::InotifyT{});
  }
  auto watch = std::make_unique<state::InotifyWatchT>();
  watch->descriptor = descriptor;
  watch->path = path;
  descriptions.back()->open.AsInotify()->watches.push_back(std::move(watch));
}

TEST_CASE("a watch that cannot be is refused", "[image][damage]") {
  ManifestT manifest = sample_manifest();
  add_watch(manifest, 1, "/a");
  add_watch(manifest, 3, "/b");
  validate_manifest(manifest, {});
  check_refused(GENERATE(values<Case>({
      {"watch 0 is out of order", [](ManifestT& m) { add_watch(m, 0, "/a"); }},
      {"watch 2 is out of order",
       [](ManifestT& m) { add_watch(m, 2, "/a"), add_watch(m, 2, "/b"); }},
      {"watch 2000000000 is out", [](ManifestT& m) { add_watch(m, 2'000'000'000, "/a"); }},
      {"a watch is not absolute", [](ManifestT& m) { add_watch(m, 1, "a"); }},
  })));
}

/// Two ends of one connection; the second.
state::SocketObjectT& add_connection(ManifestT& manifest) {
  auto& sockets = manifest.process->descriptors->sockets;
  const auto first = static_cast<int>(sockets.size());
  for (const int peer : {first + 1, first}) {
    auto socket = std::make_unique<state::SocketObjectT>();
    socket->family = 2;
    socket->type = 1;
    socket->protocol = 6;
    socket->peer = peer;
    socket->accepted = peer == first;
    socket->received = {1, 2};
    sockets.push_back(std::move(socket));
  }
  return *sockets.back();
}

TEST_CASE("a TCP connection that cannot be is refused", "[image][damage]") {
  ManifestT manifest = sample_manifest();
  add_connection(manifest);
  validate_manifest(manifest, {});
  check_refused(GENERATE(values<Case>({
      {"two equal ends", [](ManifestT& m) { add_connection(m).accepted = false; }},
      {"of another kind",
       [](ManifestT& m) {
         auto& socket = add_connection(m);
         socket.received.clear();
         socket.family = 1;
       }},
      {"connected to it", [](ManifestT& m) { add_connection(m).peer = -1; }},
  })));
}

state::MembershipT& add_membership(ManifestT& manifest) {
  auto socket = std::make_unique<state::SocketObjectT>();
  socket->family = 2;
  socket->type = 2;
  socket->protocol = 17;
  auto membership = std::make_unique<state::MembershipT>();
  membership->interface = "lo";
  membership->group = {2, 0, 0, 0, 239, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0};
  socket->memberships.push_back(std::move(membership));
  auto& sockets = manifest.process->descriptors->sockets;
  sockets.push_back(std::move(socket));
  return *sockets.back()->memberships.back();
}

state::SocketObjectT& last_socket(ManifestT& manifest) {
  return *manifest.process->descriptors->sockets.back();
}

TEST_CASE("a socket in a multicast group is accepted", "[image]") {
  ManifestT manifest = sample_manifest();
  add_membership(manifest).sources.resize(32);
  validate_manifest(manifest, {});
}

TEST_CASE("hostile multicast groups are refused", "[image][damage]") {
  check_refused(GENERATE(values<Case>({
      {"absent multicast group",
       [](ManifestT& m) { add_membership(m), last_socket(m).memberships.emplace_back(); }},
      {"of a socket of family 1",
       [](ManifestT& m) { add_membership(m), last_socket(m).family = 1; }},
      {"of a socket of family 2",
       [](ManifestT& m) {
         add_membership(m);
         last_socket(m).type = 1;
         last_socket(m).protocol = 6;
       }},
      {"group of 15 bytes", [](ManifestT& m) { add_membership(m).group.pop_back(); }},
      {"group of 0 bytes", [](ManifestT& m) { add_membership(m).group.clear(); }},
      {"group of 16 bytes", [](ManifestT& m) { add_membership(m).group[0] = 10; }},
      {"of interface", [](ManifestT& m) { add_membership(m).interface.clear(); }},
      {"of interface", [](ManifestT& m) { add_membership(m).interface = "sixteen_letters_"; }},
      {"of interface", [](ManifestT& m) { add_membership(m).interface = std::string(1, '\0'); }},
      {"multicast sources", [](ManifestT& m) { add_membership(m).sources.resize(17); }},
  })));
}

state::SocketObjectT& add_connection_with_others(ManifestT& manifest) {
  auto socket = std::make_unique<state::SocketObjectT>();
  socket->family = 2;
  socket->type = 1;
  socket->protocol = 6;
  socket->local = socket->remote = {2, 0, 0, 80, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0};
  socket->received = {1, 2};
  socket->connection = std::make_unique<state::TcpConnectionT>();
  auto& sockets = manifest.process->descriptors->sockets;
  sockets.push_back(std::move(socket));
  return *sockets.back();
}

TEST_CASE("a TCP connection with others that cannot be is refused", "[image][damage]") {
  ManifestT manifest = sample_manifest();
  add_connection_with_others(manifest);
  validate_manifest(manifest, {});
  check_refused(GENERATE(values<Case>({
      {"a socket that has none",
       [](ManifestT& m) {
         auto& socket = add_connection_with_others(m);
         socket.type = 2;
         socket.protocol = 17;
         socket.received.clear();
       }},
      {"a socket that has none",
       [](ManifestT& m) { add_connection_with_others(m).peer_gone = true; }},
      {"a socket that has none",
       [](ManifestT& m) { add_connection_with_others(m).listening = true; }},
      {"a socket that has none",
       [](ManifestT& m) { add_connection_with_others(m).remote.clear(); }},
      {"scaled by 15",
       [](ManifestT& m) { add_connection_with_others(m).connection->send_scale = 15; }},
      {"TCP buffers",
       [](ManifestT& m) { add_connection_with_others(m).connection->receive_buffer = 0x80000000; }},
      {"nobody sent", [](ManifestT& m) { add_connection_with_others(m).connection.reset(); }},
  })));
}

state::PtyObjectT& add_pty(ManifestT& manifest) {
  auto pty = std::make_unique<state::PtyObjectT>();
  pty->number = 7;
  pty->slave = state::SlaveState::open;
  pty->settings.resize(44);
  pty->input = {'a', '\n', 'b'};
  pty->lines = {{2, false}, {0, true}};
  manifest.process->descriptors->ptys.push_back(std::move(pty));
  return *manifest.process->descriptors->ptys.back();
}

TEST_CASE("a pseudo terminal that cannot be is refused", "[image][damage]") {
  ManifestT manifest = sample_manifest();
  add_pty(manifest);
  manifest.process->session = manifest.process->pid;
  add_pty(manifest).controls = true;
  manifest.process->terminal = std::make_unique<state::TerminalT>();
  validate_manifest(manifest, {});
  check_refused(GENERATE(values<Case>({
      {"settings of 43 bytes", [](ManifestT& m) { add_pty(m).settings.resize(43); }},
      {"pseudo terminal 4000000000", [](ManifestT& m) { add_pty(m).number = 4'000'000'000; }},
      {"holds 5000 and 0 bytes", [](ManifestT& m) { add_pty(m).input.resize(5000); }},
      {"lines of 6 bytes", [](ManifestT& m) { add_pty(m).lines.emplace_back(4, true); }},
      {"a line without an end", [](ManifestT& m) { add_pty(m).lines.emplace_back(0, false); }},
      {"controls a session of others",
       [](ManifestT& m) {
         m.process->session = m.process->pid + 1;
         add_pty(m).controls = true;
       }},
      {"two controlling terminals",
       [](ManifestT& m) {
         m.process->session = m.process->pid;
         add_pty(m).controls = true;
         add_pty(m).controls = true;
       }},
      {"an absent pseudo terminal",
       [](ManifestT& m) { m.process->descriptors->ptys.emplace_back(); }},
      {"a terminal with settings of 3 bytes",
       [](ManifestT& m) {
         m.process->terminal = std::make_unique<state::TerminalT>();
         m.process->terminal->settings.resize(3);
       }},
      {"descriptor of pseudo terminal",
       [](ManifestT& m) {
         auto description = std::make_unique<state::DescriptionT>();
         state::PtyT pty;
         pty.pty = 1;
         description->open.Set(pty);
         m.process->descriptors->descriptions.push_back(std::move(description));
       }},
  })));
}

}  // namespace icecore::test::validate_manifest_test
