// SPDX-License-Identifier: Apache-2.0
//
// What tools that know nothing of icecore find in an image.
#include <catch2/catch.hpp>
#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <sys/procfs.h>

#include <cstdio>
#include <map>
#include <set>

#include "image/core_segments.hpp"
#include "image/sample_image.hpp"
#include "sys/fd.hpp"

namespace icecore::test::core_file_test {

struct Note {
  std::string owner;
  std::uint32_t type;
  std::vector<std::byte> descriptor;
};

/// An image, read by libelf.
class CoreFile {
 public:
  explicit CoreFile(const std::filesystem::path& path)
      : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    ::elf_version(EV_CURRENT);
    elf_ = ::elf_begin(fd_.get(), ELF_C_READ, nullptr);
    if (elf_ == nullptr || ::gelf_getehdr(elf_, &header) == nullptr)
      throw std::runtime_error(::elf_errmsg(-1));
    std::size_t count = 0;
    if (::elf_getphdrnum(elf_, &count) != 0) throw std::runtime_error(::elf_errmsg(-1));
    for (std::size_t i = 0; i < count; ++i) {
      GElf_Phdr segment;
      if (::gelf_getphdr(elf_, static_cast<int>(i), &segment) == nullptr)
        throw std::runtime_error(::elf_errmsg(-1));
      (segment.p_type == PT_NOTE ? note_segments : loads).push_back(segment);
    }
    for (const GElf_Phdr& segment : note_segments) read_notes(segment);
  }
  CoreFile(const CoreFile&) = delete;
  CoreFile& operator=(const CoreFile&) = delete;
  ~CoreFile() { ::elf_end(elf_); }

  std::vector<Note> notes_of(std::uint32_t type) const {
    std::vector<Note> found;
    std::ranges::copy_if(notes, std::back_inserter(found),
                         [&](const Note& note) { return note.type == type; });
    return found;
  }

  GElf_Ehdr header;
  std::vector<GElf_Phdr> note_segments;
  std::vector<GElf_Phdr> loads;
  std::vector<Note> notes;

 private:
  void read_notes(const GElf_Phdr& segment) {
    Elf_Data* const data = ::elf_getdata_rawchunk(elf_, static_cast<int64_t>(segment.p_offset),
                                                  segment.p_filesz, ELF_T_NHDR);
    if (data == nullptr) throw std::runtime_error(::elf_errmsg(-1));
    const char* const bytes = static_cast<const char*>(data->d_buf);
    GElf_Nhdr note;
    std::size_t owner_at, descriptor_at, end = 0;
    for (std::size_t at = 0; (at = ::gelf_getnote(data, at, &note, &owner_at, &descriptor_at)) > 0;
         end = at) {
      const auto descriptor =
          std::as_bytes(std::span{bytes + descriptor_at, std::size_t{note.n_descsz}});
      notes.push_back({.owner = bytes + owner_at,
                       .type = note.n_type,
                       .descriptor = {descriptor.begin(), descriptor.end()}});
    }
    if (end != segment.p_filesz) throw std::runtime_error("libelf cannot read all notes");
  }

  sys::Fd fd_;
  Elf* elf_;
};

std::string output_of(const std::string& command) {
  std::FILE* const pipe = ::popen((command + " 2>&1").c_str(), "r");
  std::string output;
  for (int c; (c = std::fgetc(pipe)) != EOF;) output += static_cast<char>(c);
  if (::pclose(pipe) != 0) throw std::runtime_error(command + ": " + output);
  return output;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != text.npos; at += part.size()) ++found;
  return found;
}

struct WrittenImage {
  explicit WrittenImage(Encoding encoding = Encoding::raw,
                        const state::ManifestT& manifest = sample_manifest(),
                        const Memory& memory = sample_memory())
      : path(folder.path() / "image") {
    write_image(path, manifest, memory, encoding);
  }

  TemporaryFolder folder;
  std::filesystem::path path;
};

TEST_CASE("an image is an ELF core file of x86-64", "[core]") {
  const WrittenImage image{GENERATE(Encoding::raw, Encoding::zstd)};
  const CoreFile core{image.path};
  CHECK(core.header.e_type == ET_CORE);
  CHECK(core.header.e_machine == EM_X86_64);
  CHECK(core.header.e_ident[EI_CLASS] == ELFCLASS64);
  CHECK(core.note_segments.size() == 2);
}

TEST_CASE("notes come in the kernel's order", "[core]") {
  const WrittenImage image{GENERATE(Encoding::raw, Encoding::zstd)};
  const CoreFile core{image.path};
  std::vector<std::uint32_t> types;
  for (const Note& note : core.notes)
    if (note.owner != "icecore") types.push_back(note.type);
  CHECK(types == std::vector<std::uint32_t>{NT_PRSTATUS, NT_PRPSINFO, NT_SIGINFO, NT_AUXV, NT_FILE,
                                            NT_FPREGSET, NT_X86_XSTATE, NT_PRSTATUS, NT_SIGINFO,
                                            NT_FPREGSET, NT_X86_XSTATE});
  CHECK(core.notes.size() == types.size() + 3);
}

TEST_CASE("notes hold the state of threads", "[core]") {
  const WrittenImage image;
  const CoreFile core{image.path};
  const auto statuses = core.notes_of(NT_PRSTATUS);
  REQUIRE(statuses.size() == 2);
  for (int i = 0; i < 2; ++i) {
    elf_prstatus status;
    const Note& note = statuses[static_cast<std::size_t>(i)];
    REQUIRE(note.descriptor.size() == sizeof status);
    std::memcpy(&status, note.descriptor.data(), sizeof status);
    CHECK(status.pr_pid == 4711 + i);
    CHECK(status.pr_pgrp == 4711);
    CHECK(status.pr_sighold == 0x4002);
    CHECK(status.pr_cursig == 0);
    CHECK(status.pr_reg[16] == static_cast<std::uint8_t>(4711 + i));  // rip
  }
  CHECK(core.notes_of(NT_FPREGSET).at(1).descriptor.size() == 512);
  const Note xstate = core.notes_of(NT_X86_XSTATE).at(1);
  CHECK(xstate.owner == "LINUX");
  CHECK(xstate.descriptor.size() == 832);
  CHECK(xstate.descriptor[464] == std::byte{7});  // which components there are, for gdb
}

TEST_CASE("notes hold the state of the process", "[core]") {
  const WrittenImage image;
  const CoreFile core{image.path};
  elf_prpsinfo info;
  const Note note = core.notes_of(NT_PRPSINFO).at(0);
  REQUIRE(note.descriptor.size() == sizeof info);
  std::memcpy(&info, note.descriptor.data(), sizeof info);
  CHECK(info.pr_pid == 4711);
  CHECK(std::string{info.pr_fname} == "sample");
  CHECK(std::string{info.pr_psargs} == "/usr/bin/sample");
  CHECK(core.notes_of(NT_AUXV).at(0).descriptor.size() == 32);
}

TEST_CASE("notes list the mapped files, with offsets in pages", "[core]") {
  const WrittenImage image;
  const CoreFile core{image.path};
  const Note note = core.notes_of(NT_FILE).at(0);
  std::array<std::uint64_t, 2 + 3 * 3> numbers;
  REQUIRE(note.descriptor.size() > sizeof numbers);
  std::memcpy(numbers.data(), note.descriptor.data(), sizeof numbers);
  const std::uint64_t text = 0x555555554000;
  const std::uint64_t shared = 0x7ffff7f02000;
  CHECK(numbers == std::array<std::uint64_t, 11>{3, kPageSize,                                   //
                                                 text, text + 2 * kPageSize, 0,                  //
                                                 text + 2 * kPageSize, text + 3 * kPageSize, 1,  //
                                                 shared, shared + kPageSize, 0});
  const std::string names{reinterpret_cast<const char*>(&note.descriptor[sizeof numbers]),
                          note.descriptor.size() - sizeof numbers};
  const std::string name{"/usr/bin/sample", 16};  // with its NUL
  CHECK(names == name + name + name);
}

TEST_CASE("readelf lists threads and segments without a complaint", "[core]") {
  const WrittenImage image{GENERATE(Encoding::raw, Encoding::zstd)};
  const std::string notes = output_of("readelf -n " + image.path.string());
  CHECK(count(notes, "NT_PRSTATUS") == 2);
  CHECK(count(notes, "NT_X86_XSTATE") == 2);
  CHECK(count(notes, "NT_FILE") == 1);  // the readelf of Debian 12 can name it but not decode it
  CHECK(count(notes, "0x49430001") == 1);
  CHECK(!Catch::contains(notes, "arning"));
  CHECK(!Catch::contains(notes, "rror"));

  const std::string segments = output_of("readelf -lW " + image.path.string());
  CHECK(count(segments, "  NOTE ") == 2);
  CHECK(!Catch::contains(segments, "arning"));
}

// ---- segments ---------------------------------------------------------------------------------

struct Segment {
  std::uint64_t start, end, file_bytes;
  bool operator==(const Segment&) const = default;
};

std::vector<Segment> segments_of(const std::vector<GElf_Phdr>& loads) {
  std::vector<Segment> segments;
  for (const GElf_Phdr& load : loads)
    segments.push_back({load.p_vaddr, load.p_vaddr + load.p_memsz, load.p_filesz});
  return segments;
}

TEST_CASE("a debugger finds stored pages, and zeros where anonymous memory has none", "[core]") {
  const WrittenImage image;
  const CoreFile core{image.path};
  const std::uint64_t shared = 0x7ffff7f00000;
  const std::uint64_t stack_page = kStack + 3 * kPageSize;
  CHECK(segments_of(core.loads) ==
        std::vector<Segment>{{kHeap, kHeap + 3 * kPageSize, 3 * kPageSize},
                             {kHeap + 3 * kPageSize, kHeap + kHeapPages * kPageSize, 0},
                             {shared, shared + 2 * kPageSize, 0},
                             {kStack, stack_page, 0},
                             {stack_page, stack_page + kPageSize, kPageSize}});

  const auto bytes = read_file(image.path);
  const Memory memory = sample_memory();
  CHECK(std::ranges::equal(std::span{bytes}.subspan(core.loads[0].p_offset, 3 * kPageSize),
                           std::span{memory.bytes}.first(3 * kPageSize)));
  CHECK(std::ranges::equal(std::span{bytes}.subspan(core.loads[4].p_offset, kPageSize),
                           std::span{memory.bytes}.last(kPageSize)));
  CHECK(core.loads[0].p_flags == (PF_R | PF_W));
}

TEST_CASE("segments are cut where mappings meet", "[core]") {
  state::ManifestT manifest = sample_manifest();
  auto& mappings = manifest.process->address_space->mappings;
  const std::uint64_t cut = kHeap + 2 * kPageSize;
  mappings[2] = anonymous_mapping(kHeap, cut, 0);
  mappings.insert(mappings.begin() + 3, anonymous_mapping(cut, kHeap + 8 * kPageSize));
  PageMap map;
  map.data_offset = kPageSize;
  map.runs = {{.address = kHeap + kPageSize, .pages = 2},
              {.address = cut + 3 * kPageSize, .pages = 1}};

  std::vector<Segment> segments;
  std::vector<std::uint64_t> offsets;
  for (const Elf64_Phdr& load : core_segments(manifest, map)) {
    if (load.p_vaddr >= kHeap + 8 * kPageSize) break;
    segments.push_back({load.p_vaddr, load.p_vaddr + load.p_memsz, load.p_filesz});
    if (load.p_filesz != 0) offsets.push_back(load.p_offset);
  }
  CHECK(segments == std::vector<Segment>{
                        {kHeap, kHeap + kPageSize, 0},
                        {kHeap + kPageSize, cut, kPageSize},
                        {cut, cut + kPageSize, kPageSize},
                        {cut + kPageSize, cut + 3 * kPageSize, 0},
                        {cut + 3 * kPageSize, cut + 4 * kPageSize, kPageSize},
                        {cut + 4 * kPageSize, kHeap + 8 * kPageSize, 0},
                    });
  CHECK(offsets == std::vector<std::uint64_t>{kPageSize, 2 * kPageSize, 3 * kPageSize});
}

TEST_CASE("shared memory that is mapped twice is not said to be zero", "[core]") {
  state::ManifestT manifest = sample_manifest();
  auto& mappings = manifest.process->address_space->mappings;
  const std::uint64_t again = 0x7ffff7e00000;
  mappings.insert(mappings.begin() + 3, {again, again + 2 * kPageSize, 0, 0, 0, -1, -1, 3,
                                         state::MappingKind::shared_anonymous, true});
  for (const Elf64_Phdr& load : core_segments(manifest, {}))
    CHECK((load.p_vaddr < again || load.p_vaddr >= kStack));
}

TEST_CASE("a zstd image has no segments that would show the wrong bytes", "[core]") {
  const WrittenImage image{Encoding::zstd};
  CHECK(CoreFile{image.path}.loads.empty());
}

TEST_CASE("more segments than the ELF header can count are counted", "[core]") {
  state::ManifestT manifest = sample_manifest();
  const std::uint64_t start = 0x600000000000;
  const std::uint64_t mappings = 65535;
  auto& all = manifest.process->address_space->mappings;
  std::vector<state::Mapping> many;
  for (std::uint64_t i = 0; i < mappings; ++i)
    many.push_back(anonymous_mapping(start + 2 * i * kPageSize, start + (2 * i + 1) * kPageSize));
  all.insert(all.begin() + 3, many.begin(), many.end());

  const WrittenImage image{Encoding::raw, manifest};
  const CoreFile core{image.path};
  CHECK(core.header.e_phnum == PN_XNUM);
  CHECK(core.loads.size() == mappings + 5);
  const std::string header = output_of("readelf -hW " + image.path.string());
  CHECK(Catch::contains(header, "65535 (65542)"));
}

}  // namespace icecore::test::core_file_test
