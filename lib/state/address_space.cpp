// SPDX-License-Identifier: Apache-2.0
#include "state/address_space.hpp"

#include <fmt/format.h>
#include <linux/prctl.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <string_view>
#include <utility>

#include "icecore/error.hpp"
#include "image/mapping.hpp"
#include "state/segments.hpp"
#include "sys/check.hpp"
#include "sys/files.hpp"
#include "sys/memory_features.hpp"
#include "sys/procfs.hpp"

namespace icecore {
namespace {

using state::MappingFlag;
using state::MappingKind;

constexpr std::uint64_t kEndOfUserSpace = 0x7ffffffff000;

// Debian 12's headers lack some of these.
constexpr std::uint64_t kMadvDontFork = 10;
constexpr std::uint64_t kMadvMergeable = 12;
constexpr std::uint64_t kMadvHugePage = 14;
constexpr std::uint64_t kMadvNoHugePage = 15;
constexpr std::uint64_t kMadvDontDump = 16;
constexpr std::uint64_t kMadvWipeOnFork = 18;
constexpr std::uint64_t kMadvGuardInstall = 102;
constexpr std::uint64_t kMapDroppable = 8;
constexpr std::uint64_t kPrctlSetVma = 0x53564d41;
constexpr long kMseal = 462;
constexpr std::uint64_t kHugeShift = 26;  // of the page size's logarithm in mmap's flags

/// How a flag shows in VmFlags, and which madvise(2) sets it again (0: none does).
struct FlagRow {
  const char* letters;
  MappingFlag flag;
  std::uint64_t advice;
};
constexpr std::array kKept{
    FlagRow{"gd", MappingFlag::grows_down, 0},
    FlagRow{"nr", MappingFlag::no_reserve, 0},
    FlagRow{"hg", MappingFlag::huge_pages, kMadvHugePage},
    FlagRow{"nh", MappingFlag::no_huge_pages, kMadvNoHugePage},
    FlagRow{"mw", MappingFlag::may_write, 0},
    FlagRow{"sr", MappingFlag::sequential, MADV_SEQUENTIAL},
    FlagRow{"rr", MappingFlag::random, MADV_RANDOM},
    FlagRow{"dd", MappingFlag::dont_dump, kMadvDontDump},
    FlagRow{"dc", MappingFlag::dont_fork, kMadvDontFork},
    FlagRow{"wf", MappingFlag::wipe_on_fork, kMadvWipeOnFork},
    FlagRow{"mg", MappingFlag::mergeable, kMadvMergeable},
    FlagRow{"lo", MappingFlag::locked, 0},
    FlagRow{"lf", MappingFlag::locked_on_fault, 0},
    FlagRow{"sl", MappingFlag::sealed, 0},
    FlagRow{"dp", MappingFlag::droppable, 0},
};

struct RefusedFlag {
  const char* letters;
  const char* what;
};
constexpr std::array kRefused{
    RefusedFlag{"io", "memory of a device"},
    RefusedFlag{"pf", "memory of a device"},
    RefusedFlag{"uw", "registered with a userfaultfd"},
    RefusedFlag{"ui", "registered with a userfaultfd"},
    RefusedFlag{"ss", "shadow stack"},
};

bool is_vdso_part(std::string_view name) {
  return name == "[vdso]" || name == "[vvar]" || name == "[vvar_vclock]";
}

/// PR_SET_VMA_ANON_NAME
bool is_named(std::string_view name) {
  return name.starts_with("[anon:") || name.starts_with("[anon_shmem:");
}

bool is_text_of_vdso(const state::AddressSpaceT& image, const state::Mapping& mapping) {
  return mapping.kind() == MappingKind::vdso && mapping.name() >= 0 &&
         image.names[static_cast<std::size_t>(mapping.name())] == "[vdso]";
}

bool is_shared_anonymous(const sys::Vma& vma) {
  return vma.shared && (vma.name == "/dev/zero (deleted)" || vma.name.starts_with("[anon_shmem:"));
}

bool is_private_huge(const sys::Vma& vma) {
  return !vma.shared && vma.name == "/anon_hugepage (deleted)";
}

/// What stands between the colon and the bracket.
std::string given_name(std::string_view name) {
  const std::size_t colon = name.find(':');
  return std::string{name.substr(colon + 1, name.size() - colon - 2)};
}

std::uint64_t flags_of(const sys::Vma& vma) {
  std::uint64_t flags = 0;
  for (const FlagRow& row : kKept)
    if (vma.has_flag(row.letters)) flags |= static_cast<std::uint64_t>(row.flag);
  return flags;
}

/// Which parts of shared objects have been seen: two mappings of one part store it once.
class SharedObjects {
 public:
  /// The object behind `vma`, and the parts of `vma` that no earlier mapping shows.
  std::uint64_t add(const sys::Vma& vma, std::vector<PageSource>& pages) {
    const auto [at, fresh] = index_.try_emplace({vma.device, vma.inode}, objects_.size());
    if (fresh) objects_.emplace_back();
    Object& object = objects_[at->second];
    const std::uint64_t end = vma.offset + vma.size();
    object.size = std::max(object.size, end);

    std::uint64_t offset = vma.offset;
    const auto source = [&](std::uint64_t until) {
      if (offset < until)
        pages.push_back({vma.start + (offset - vma.offset), vma.start + (until - vma.offset),
                         PageSource::Which::shared_data, vma.start, vma.end, vma.offset});
    };
    for (const auto& [seen_start, seen_end] : object.seen) {
      if (seen_end <= offset) continue;
      if (seen_start >= end) break;
      source(std::min(seen_start, end));
      offset = std::max(offset, seen_end);
    }
    source(end);
    object.seen[vma.offset] = std::max(object.seen[vma.offset], end);
    return at->second;
  }

  std::vector<state::SharedObject> sizes() const {
    std::vector<state::SharedObject> sizes;
    for (const Object& object : objects_) sizes.emplace_back(object.size);
    return sizes;
  }

 private:
  struct Object {
    std::uint64_t size = 0;
    std::map<std::uint64_t, std::uint64_t> seen;  // offset -> end, may overlap
  };
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::size_t> index_;
  std::vector<Object> objects_;
};

/// What is captured of one mapping after the other.
class Recorder {
 public:
  explicit Recorder(Capture& capture) : capture_(capture) {}

  void add(const sys::Vma& vma) {
    if (vma.name == "[vsyscall]") return;  // the same in every process
    if (refuse(vma)) return;
    if (is_vdso_part(vma.name))
      add_vdso(vma);
    else if (SegmentCapture::is_one(vma))
      add_segment(vma);
    else if (is_shared_anonymous(vma))
      record(vma, MappingKind::shared_anonymous, -1, objects_.add(vma, result_.pages));
    else if (vma.inode == 0 || is_private_huge(vma))
      add_anonymous(vma);
    else
      add_file(vma);
  }

  CapturedAddressSpace take() {
    state_.shared_objects = objects_.sizes();
    state_.segments = segments_.take(state_.shared_objects, capture_.refusals);
    result_.state = std::make_unique<state::AddressSpaceT>(std::move(state_));
    return std::move(result_);
  }

 private:
  bool refuse(const sys::Vma& vma) {
    const auto say = [&](const char* what) {
      capture_.refusals.add("mapping {:#x}-{:#x} {}: {}: cannot be snapshotted yet", vma.start,
                            vma.end, vma.name, what);
    };
    if (is_vdso_part(vma.name)) return false;
    for (const RefusedFlag& row : kRefused)
      if (vma.has_flag(row.letters)) return say(row.what), true;
    if (vma.has_flag("um") && !capture_.is_being_loaded)
      return say("registered with a userfaultfd"), true;
    if (vma.has_flag("ht") && !is_private_huge(vma))
      return say("huge pages of a file or shared (hugetlbfs)"), true;
    if (vma.end > kEndOfUserSpace) return say("lies above 47 bits of address"), true;
    if (vma.protection_key != 0) return say("protection key"), true;
    if (vma.name.starts_with("/secretmem")) return say("secret memory (memfd_secret)"), true;
    if (vma.name.starts_with("/[aio]")) return say("ring of asynchronous I/O"), true;
    if (vma.name.starts_with("anon_inode:")) return say("memory of a kernel object"), true;
    if (vma.name == "[uprobes]") return say("uprobes"), true;
    return false;
  }

  void add_vdso(const sys::Vma& vma) {
    record(vma, MappingKind::vdso, -1, 0);
    if (vma.name == "[vdso]") look_for_pages(vma, PageSource::Which::all);
  }

  void add_segment(const sys::Vma& vma) {
    const std::uint64_t object = objects_.add(vma, result_.pages);
    if (segments_.add(vma, object, capture_.refusals))
      record(vma, MappingKind::shared_anonymous, -1, object);
  }

  void add_anonymous(const sys::Vma& vma) {
    record(vma, MappingKind::anonymous, -1, 0);
    // The kernel may drop it at any moment: it holds keys that must be in no image.
    if (!vma.has_flag("dp")) look_for_pages(vma, PageSource::Which::private_pages);
  }

  /// Of a link in map_files, which the kernel shows to few.
  static sys::FileStatus status_of(const std::string& link) {
    try {
      return sys::status(link);
    } catch (const Error& error) {
      if (error.sys_errno() != EPERM) throw;
      throw Error{Errc::permission,
                  fmt::format("{}: run icecore as root, or give it CAP_CHECKPOINT_RESTORE and "
                              "CAP_SYS_PTRACE",
                              error.what()),
                  EPERM};
    }
  }

  void add_file(const sys::Vma& vma) {
    const auto key = std::pair{vma.device, vma.inode};
    auto known = files_.find(key);
    if (known == files_.end()) {
      const std::string itself =
          fmt::format("/proc/{}/map_files/{:x}-{:x}", capture_.pid, vma.start, vma.end);
      const auto status = status_of(itself);
      std::int32_t file = -1;
      if (!S_ISREG(status.st_mode)) {
        capture_.refusals.add("mapping {:#x}-{:#x} {}: memory of a device: cannot be snapshotted",
                              vma.start, vma.end, vma.name);
      } else {
        try {
          file = capture_.files.add(vma.name, status, true, itself);
          if (capture_.files.is_leased(file))
            throw Error{Errc::unsupported,
                        fmt::format("{}: a lease for writing is held on a file that is mapped: "
                                    "cannot be kept",
                                    vma.name)};
        } catch (const Error& e) {
          capture_.refusals.add("mapping {:#x}-{:#x}: {}", vma.start, vma.end, e.what());
        }
      }
      known = files_.emplace(key, file).first;
    }
    if (known->second < 0) return;
    record(vma, MappingKind::file, known->second, 0);
    if (!vma.shared) look_for_pages(vma, PageSource::Which::private_pages);
  }

  void record(const sys::Vma& vma, MappingKind kind, std::int32_t file, std::uint64_t object) {
    std::int32_t name = -1;
    const bool says_nothing =
        kind == MappingKind::file || vma.name == "/dev/zero (deleted)" || is_private_huge(vma);
    if (!vma.name.empty() && !says_nothing) {
      name = static_cast<std::int32_t>(state_.names.size());
      state_.names.push_back(vma.name);
    }
    // The offset of anonymous memory means nothing.
    const bool has_offset = kind == MappingKind::file || kind == MappingKind::shared_anonymous;
    state_.mappings.emplace_back(vma.start, vma.end, has_offset ? vma.offset : 0, object,
                                 flags_of(vma) | page_size(vma), file, name, vma.protection, kind,
                                 vma.shared);
  }

  std::uint64_t page_size(const sys::Vma& vma) {
    if (!is_private_huge(vma)) return 0;
    if (vma.page_size == std::uint64_t{2} << 20)
      return static_cast<std::uint64_t>(MappingFlag::huge_2m);
    if (vma.page_size == std::uint64_t{1} << 30)
      return static_cast<std::uint64_t>(MappingFlag::huge_1g);
    capture_.refusals.add("mapping {:#x}-{:#x}: huge pages of {} bytes: cannot be kept", vma.start,
                          vma.end, vma.page_size);
    return 0;
  }

  void look_for_pages(const sys::Vma& vma, PageSource::Which which) {
    result_.pages.push_back({vma.start, vma.end, which, vma.start, vma.end, 0});
  }

  Capture& capture_;
  CapturedAddressSpace result_;
  state::AddressSpaceT state_;
  SharedObjects objects_;
  SegmentCapture segments_;
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::int32_t> files_;
};

std::vector<std::uint8_t> read_auxv(pid_t pid) {
  const std::string text = sys::read_process_file(pid, "auxv");
  return {text.begin(), text.end()};
}

void capture_bounds(Capture& capture, state::AddressSpaceT& state) {
  const auto stat = sys::read_stat(capture.pid);
  if (!stat) throw Error{Errc::target_gone, fmt::format("process {} has ended", capture.pid)};
  state.start_code = stat->start_code;
  state.end_code = stat->end_code;
  state.start_data = stat->start_data;
  state.end_data = stat->end_data;
  state.start_brk = stat->start_brk;
  state.start_stack = stat->start_stack;
  state.arg_start = stat->arg_start;
  state.arg_end = stat->arg_end;
  state.env_start = stat->env_start;
  state.env_end = stat->env_end;
  state.auxv = read_auxv(capture.pid);
  const std::string exe = fmt::format("/proc/{}/exe", capture.pid);
  try {
    state.executable = capture.files.add(sys::read_link(exe), sys::status(exe), true, exe);
  } catch (const Error& e) {
    capture.refusals.add("executable: {}", e.what());
  }
}

std::uint64_t flag_bits_for_mmap(const state::Mapping& mapping) {
  std::uint64_t flags = MAP_FIXED_NOREPLACE;
  if (has(mapping, MappingFlag::no_reserve)) flags |= MAP_NORESERVE;
  if (has(mapping, MappingFlag::grows_down)) flags |= MAP_GROWSDOWN;
  if (has(mapping, MappingFlag::huge_2m)) flags |= MAP_HUGETLB | 21 << kHugeShift;
  if (has(mapping, MappingFlag::huge_1g)) flags |= MAP_HUGETLB | 30 << kHugeShift;
  return flags;
}

void advise(const state::Mapping& mapping, CallStream& calls) {
  if (has(mapping, MappingFlag::droppable)) return;  // comes with all its flags
  for (const FlagRow& row : kKept)
    if (row.advice != 0 && has(mapping, row.flag))
      calls.call("set advice for memory", SYS_madvise,
                 {mapping.start(), mapping.end() - mapping.start(), row.advice});
}

void rebuild_shared_anonymous(const state::Mapping& mapping, const Workplace& work,
                              CallStream& calls) {
  const std::uint64_t size = mapping.end() - mapping.start();
  // An old size of 0 makes mremap(2) map the same memory a second time.
  calls.call("map shared memory", SYS_mremap,
             {work.shared_objects[mapping.object()] + mapping.offset(), 0, size,
              MREMAP_MAYMOVE | MREMAP_FIXED, mapping.start()});
  if (mapping.protection() != (PROT_READ | PROT_WRITE))
    calls.call("protect shared memory", SYS_mprotect,
               {mapping.start(), size, mapping.protection()});
}

/// Where the kernel knows no names (CONFIG_ANON_VMA_NAME), nothing can depend on them.
void give_name(const state::AddressSpaceT& image, const state::Mapping& mapping,
               CallStream& calls) {
  if (mapping.name() < 0) return;
  const std::string& name = image.names[static_cast<std::size_t>(mapping.name())];
  if (!is_named(name)) return;
  const std::string given = given_name(name);
  CallList& list = calls.room(1, given.size() + 16);
  list.try_call(SYS_prctl, {kPrctlSetVma, 0, mapping.start(), mapping.end() - mapping.start(),
                            list.put_string(given)});
}

bool holds_guard(const state::AddressSpaceT& image, const state::Mapping& mapping) {
  return std::ranges::any_of(image.guards, [&](const state::AddressRange& guard) {
    return mapping.start() <= guard.start() && guard.start() < mapping.end();
  });
}

}  // namespace

CapturedAddressSpace capture_address_space(Capture& capture, const std::vector<sys::Vma>& vmas) {
  Recorder recorder{capture};
  for (const sys::Vma& vma : vmas) recorder.add(vma);
  CapturedAddressSpace captured = recorder.take();
  capture_bounds(capture, *captured.state);
  return captured;
}

std::vector<std::uint8_t> capture_vdso(const Capture& capture, const std::vector<sys::Vma>& vmas) {
  for (const sys::Vma& vma : vmas) {
    if (vma.name != "[vdso]") continue;
    std::vector<std::uint8_t> text(vma.size());
    capture.memory.read(vma.start, std::as_writable_bytes(std::span{text}));
    return text;
  }
  return {};
}

std::uint64_t find_room(const state::AddressSpaceT& image, const std::vector<sys::Vma>& occupied,
                        std::uint64_t size_bytes) {
  constexpr std::uint64_t kLowest = 0x1'0000'0000;  // above 32-bit programs' and non-PIE addresses
  std::vector<std::pair<std::uint64_t, std::uint64_t>> taken;
  for (const state::Mapping& mapping : image.mappings)
    taken.emplace_back(mapping.start(), mapping.end());
  for (const state::AddressRange& hole : image.holes) taken.emplace_back(hole.start(), hole.end());
  for (const sys::Vma& vma : occupied) taken.emplace_back(vma.start, vma.end);
  std::ranges::sort(taken);

  std::uint64_t at = kLowest;
  for (const auto& [start, end] : taken) {
    if (end <= at) continue;
    if (start > at && start - at >= size_bytes) return at;
    at = end;
  }
  if (at < kEndOfUserSpace && kEndOfUserSpace - at >= size_bytes) return at;
  throw Error{Errc::incompatible,
              fmt::format("no room for {} bytes in the address space of the process", size_bytes)};
}

std::uint64_t find_high_room(const state::AddressSpaceT& image, std::uint64_t size_bytes) {
  constexpr std::uint64_t kDistance = std::uint64_t{1} << 20;  // from what might still grow
  std::uint64_t end = kEndOfUserSpace - kDistance;
  for (auto mapping = image.mappings.rbegin(); mapping != image.mappings.rend(); ++mapping) {
    if (mapping->end() < end && end - mapping->end() >= size_bytes + kDistance)
      return end - size_bytes;
    end = std::min(end, mapping->start() - std::min(mapping->start(), kDistance));
  }
  throw Error{Errc::incompatible, "no room for the vdso in the address space of the process"};
}

std::vector<sys::Vma> vdso_parts(const std::vector<sys::Vma>& vmas) {
  std::vector<sys::Vma> parts;
  for (const sys::Vma& vma : vmas)
    if (is_vdso_part(vma.name)) parts.push_back(vma);
  return parts;
}

const state::Mapping& foreign_vdso_mapping(const state::AddressSpaceT& image) {
  const auto found = std::ranges::find_if(image.mappings, [&](const state::Mapping& mapping) {
    return is_text_of_vdso(image, mapping);
  });
  ICECORE_CHECK(found != image.mappings.end());
  return *found;
}

void clear_address_space(const std::vector<sys::Vma>& present, const Workplace& work,
                         CallStream& calls) {
  std::uint64_t to = work.vdso;
  for (const sys::Vma& part : vdso_parts(present)) {
    calls.call("move the vdso away", SYS_mremap,
               {part.start, part.size(), part.size(), MREMAP_MAYMOVE | MREMAP_FIXED, to});
    to += part.size();
  }
  calls.call("unmap what lies below", SYS_munmap, {0, work.start});
  calls.call("unmap what lies above", SYS_munmap, {work.end, kEndOfUserSpace - work.end});
}

namespace {

/// Where a part has been moved to.  The process may have unmapped others.
std::uint64_t vdso_part_at_work(const state::AddressSpaceT& image, const state::Mapping& mapping,
                                const std::vector<sys::Vma>& parts, const Workplace& work) {
  std::uint64_t at = work.vdso;
  for (const sys::Vma& part : parts) {
    if (mapping.name() >= 0 && part.name == image.names[static_cast<std::size_t>(mapping.name())] &&
        part.size() == mapping.end() - mapping.start())
      return at;
    at += part.size();
  }
  throw Error{Errc::incompatible, "the image holds a part of the vdso that is not here"};
}

}  // namespace

void rebuild_mappings(const state::AddressSpaceT& image, const std::vector<sys::Vma>& present,
                      const Workplace& work,
                      const std::function<int(const state::Mapping&)>& mapped_file,
                      CallStream& calls) {
  for (std::size_t i = 0; i < image.shared_objects.size(); ++i) {
    const auto user = std::ranges::find_if(image.mappings, [&](const state::Mapping& mapping) {
      return mapping.kind() == MappingKind::shared_anonymous && mapping.object() == i;
    });
    ICECORE_CHECK(user != image.mappings.end());
    if (const int segment = work.segments[i]; segment >= 0) {
      // One that was left behind may hold pages that it did not hold then.
      calls.call("attach shared memory", SYS_shmat,
                 {static_cast<std::uint64_t>(segment), work.shared_objects[i], 0});
      calls.call("empty shared memory", SYS_madvise,
                 {work.shared_objects[i], image.shared_objects[i].size(), MADV_REMOVE});
      continue;
    }
    calls.call("map a shared object", SYS_mmap,
               {work.shared_objects[i], image.shared_objects[i].size(), PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS | flag_bits_for_mmap(*user), ~0ULL, 0});
  }

  const std::vector<sys::Vma> parts = vdso_parts(present);
  for (const state::Mapping& mapping : image.mappings) {
    const std::uint64_t size = mapping.end() - mapping.start();
    switch (mapping.kind()) {
      case MappingKind::anonymous:
        calls.call("map memory", SYS_mmap,
                   {mapping.start(), size, mapping.protection(),
                    (has(mapping, MappingFlag::droppable) ? kMapDroppable : MAP_PRIVATE) |
                        MAP_ANONYMOUS | flag_bits_for_mmap(mapping),
                    ~0ULL, 0});
        break;
      case MappingKind::shared_anonymous:
        rebuild_shared_anonymous(mapping, work, calls);
        break;
      case MappingKind::file:
        calls.call("map a file", SYS_mmap,
                   {mapping.start(), size, mapping.protection(),
                    (mapping.shared() ? MAP_SHARED : MAP_PRIVATE) | flag_bits_for_mmap(mapping),
                    static_cast<std::uint64_t>(mapped_file(mapping)), mapping.offset()});
        break;
      case MappingKind::vdso:
        if (work.own_vdso != 0) {
          if (is_text_of_vdso(image, mapping))
            calls.call("map the text of another vdso", SYS_mmap,
                       {mapping.start(), size, PROT_READ | PROT_EXEC,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, ~0ULL, 0});
          continue;
        }
        calls.call("move the vdso to its place", SYS_mremap,
                   {vdso_part_at_work(image, mapping, parts, work), size, size,
                    MREMAP_MAYMOVE | MREMAP_FIXED, mapping.start()});
        continue;
    }
    advise(mapping, calls);
    give_name(image, mapping, calls);
  }
  std::uint64_t vdso = work.vdso, own = work.own_vdso;
  for (const sys::Vma& part : parts) {
    if (own == 0) break;
    calls.call("move the vdso to where it stays", SYS_mremap,
               {vdso, part.size(), part.size(), MREMAP_MAYMOVE | MREMAP_FIXED, own});
    vdso += part.size();
    own += part.size();
  }
}

void rebuild_guards_and_locks(const state::AddressSpaceT& image, CallStream& calls) {
  constexpr std::uint64_t kOnFault = 1;     // MLOCK_ONFAULT
  constexpr std::uint64_t kMclOnFault = 4;  // MCL_ONFAULT
  // In this order: memory that is locked takes no guards.
  for (const state::AddressRange& guard : image.guards)
    calls.call("guard memory", SYS_madvise,
               {guard.start(), guard.end() - guard.start(), kMadvGuardInstall});
  for (const state::Mapping& mapping : image.mappings) {
    if (!has(mapping, MappingFlag::locked)) continue;
    const std::initializer_list<std::uint64_t> arguments{
        mapping.start(), mapping.end() - mapping.start(),
        has(mapping, MappingFlag::locked_on_fault) ? kOnFault : 0};
    // Pages that cannot be touched make it fail, although all the others are locked then.
    if (mapping.protection() == PROT_NONE || holds_guard(image, mapping))
      calls.room(1, 0).try_call(SYS_mlock2, arguments);
    else
      calls.call("lock memory", SYS_mlock2, arguments);
  }
  if (image.new_memory != state::NewMemory::unlocked)
    calls.call(
        "lock all new memory", SYS_mlockall,
        {MCL_FUTURE | (image.new_memory == state::NewMemory::locked_on_fault ? kMclOnFault : 0)});
}

void rebuild_seals(const state::AddressSpaceT& image, CallStream& calls) {
  for (const state::Mapping& mapping : image.mappings)
    if (has(mapping, MappingFlag::sealed))
      calls.call("seal memory", kMseal, {mapping.start(), mapping.end() - mapping.start(), 0});
}

void refuse_lacking_memory(const state::AddressSpaceT& image, Refusals& refusals) {
  const auto wants = [&](MappingFlag flag) {
    return std::ranges::any_of(image.mappings, [&](const auto& m) { return has(m, flag); });
  };
  if (wants(MappingFlag::droppable) && !sys::has_droppable_memory())
    refusals.add("memory: droppable memory (MAP_DROPPABLE): this kernel has none (Linux 6.11)");
  if (wants(MappingFlag::sealed) && !sys::has_sealing())
    refusals.add("memory: sealed memory (mseal): this kernel has none (Linux 6.10)");
  if (!image.guards.empty() && !sys::has_guard_pages())
    refusals.add("memory: guard pages (MADV_GUARD_INSTALL): this kernel has none (Linux 6.13)");
  for (const auto& [flag, bytes] : {std::pair{MappingFlag::huge_2m, std::uint64_t{2} << 20},
                                    std::pair{MappingFlag::huge_1g, std::uint64_t{1} << 30}}) {
    std::uint64_t wanted = 0;
    for (const state::Mapping& mapping : image.mappings)
      if (has(mapping, flag) && !has(mapping, MappingFlag::no_reserve))
        wanted += (mapping.end() - mapping.start()) / bytes;
    if (const auto free = wanted == 0 ? 0 : sys::free_huge_pages(bytes); free < wanted)
      refusals.add(
          "memory: {} huge pages of {} MiB are needed, {} are free: see "
          "/proc/sys/vm/nr_hugepages",
          wanted, bytes >> 20, free);
  }
}

bool takes_small_pages(const state::Mapping& mapping) {
  return !has(mapping, MappingFlag::huge_2m) && !has(mapping, MappingFlag::huge_1g);
}

void record_guards(const std::vector<sys::PageRange>& guards, state::AddressSpaceT& state) {
  auto mapping = state.mappings.begin();
  for (const sys::PageRange& guard : guards) {
    while (mapping != state.mappings.end() && mapping->end() <= guard.start) ++mapping;
    // A mapping that was refused is not there.
    for (auto m = mapping; m != state.mappings.end() && m->start() < guard.end; ++m)
      state.guards.emplace_back(std::max(guard.start, m->start()), std::min(guard.end, m->end()));
  }
}

void rebuild_bounds(const state::AddressSpaceT& image, int executable, CallStream& calls) {
  CallList& list = calls.room(1, sizeof(::prctl_mm_map) + image.auxv.size());
  ::prctl_mm_map bounds{};
  bounds.start_code = image.start_code;
  bounds.end_code = image.end_code;
  bounds.start_data = image.start_data;
  bounds.end_data = image.end_data;
  bounds.start_brk = image.start_brk;
  bounds.brk = image.brk;
  bounds.start_stack = image.start_stack;
  bounds.arg_start = image.arg_start;
  bounds.arg_end = image.arg_end;
  bounds.env_start = image.env_start;
  bounds.env_end = image.env_end;
  bounds.auxv = reinterpret_cast<__u64*>(list.put(std::as_bytes(std::span{image.auxv})));
  bounds.auxv_size = static_cast<std::uint32_t>(image.auxv.size());
  bounds.exe_fd = static_cast<std::uint32_t>(executable);
  list.call("set brk, arguments and executable", SYS_prctl,
            {PR_SET_MM, PR_SET_MM_MAP, list.put_value(bounds), sizeof bounds, 0});
}

}  // namespace icecore
