// SPDX-License-Identifier: Apache-2.0
#include "support/proc_view.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>

namespace test {
namespace {

namespace fs = std::filesystem;

std::string contents(const fs::path& path) {
  std::ifstream file{path, std::ios::binary};
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

/// A deleted file comes back as another one without a name, which the kernel calls by its inode.
std::string lasting_name(const std::string& name) {
  const bool nameless = name.ends_with(" (deleted)") && !name.starts_with("/memfd:");
  return nameless ? "a deleted file" : name;
}

std::string link(const fs::path& path) {
  std::error_code error;
  const fs::path to = fs::read_symlink(path, error);
  return error ? "(" + error.message() + ")" : lasting_name(to);
}

std::string hex(const std::string& bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char byte : bytes) {
    text += kDigits[static_cast<unsigned char>(byte) >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

/// "Name:\tvalue" lines, as in /proc/PID/status and fdinfo.
std::map<std::string, std::string> fields_of(const fs::path& path) {
  std::map<std::string, std::string> fields;
  std::ifstream lines{path};
  for (std::string line; std::getline(lines, line);) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::size_t value = line.find_first_not_of(" \t", colon + 1);
    fields[line.substr(0, colon)] = value == std::string::npos ? "" : line.substr(value);
  }
  return fields;
}

// ---- memory --------------------------------------------------------------------------------

struct Mapping {
  unsigned long start = 0, end = 0, offset = 0;
  std::string permissions, device, inode, name, flags;

  bool of_file() const { return inode != "0"; }

  bool goes_on_in(const Mapping& next) const {
    return end == next.start && permissions == next.permissions && device == next.device &&
           inode == next.inode && name == next.name && flags == next.flags &&
           (!of_file() || offset + (end - start) == next.offset);
  }
};

std::optional<Mapping> parse_mapping(const std::string& line) {
  Mapping mapping;
  std::istringstream words{line};
  char dash = 0;
  words >> std::hex >> mapping.start >> dash >> mapping.end >> mapping.permissions >>
      mapping.offset >> mapping.device >> mapping.inode >> std::ws;
  if (!words && !words.eof()) return std::nullopt;
  if (dash != '-') return std::nullopt;
  std::getline(words, mapping.name);
  if (mapping.name == "/dev/zero (deleted)" || mapping.name == "/anon_hugepage (deleted)")
    mapping.device = mapping.inode = "shared memory";
  if (mapping.name.ends_with(" (deleted)")) mapping.inode = "deleted";
  mapping.name = lasting_name(mapping.name);
  if (!mapping.of_file()) mapping.offset = 0;
  return mapping;
}

/// Less "sd" (soft dirty), which any write sets, "ac", which tells how memory was accounted, and
/// "gu" (Linux 6.18): that somewhere in the mapping, or in one that it was merged with, there was
/// once a guard page.
std::string lasting_flags(const std::string& line, Registrations registrations) {
  std::istringstream words{line.substr(line.find(':') + 1)};
  std::string flags;
  for (std::string flag; words >> flag;)
    if (flag != "sd" && flag != "ac" && flag != "gu" &&
        (flag != "um" || registrations == Registrations::seen))
      flags += " " + flag;
  return flags;
}

std::vector<Mapping> mappings_of(const fs::path& process, Registrations registrations) {
  std::vector<Mapping> mappings;
  std::ifstream lines{process / "smaps"};
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("VmFlags:"))
      mappings.back().flags += lasting_flags(line, registrations);
    else if (line.starts_with("ProtectionKey:"))
      mappings.back().flags += " key " + std::to_string(std::stoi(line.substr(14)));
    else if (line.find('-') < 17 && line.find(':') > 17)
      if (const auto mapping = parse_mapping(line)) mappings.push_back(*mapping);
  }
  return mappings;
}

/// The kernel may or may not have merged neighbours: not a difference.
std::vector<Mapping> merged(const std::vector<Mapping>& mappings) {
  std::vector<Mapping> result;
  for (const Mapping& mapping : mappings) {
    if (!result.empty() && result.back().goes_on_in(mapping))
      result.back().end = mapping.end;
    else
      result.push_back(mapping);
  }
  return result;
}

void view_memory(const fs::path& process, Registrations registrations, ProcView& view) {
  for (const Mapping& mapping : merged(mappings_of(process, registrations))) {
    std::ostringstream name, text;
    name << "mapping " << std::hex << mapping.start;
    text << "to " << std::hex << mapping.end << " " << mapping.permissions << " offset "
         << mapping.offset << " " << mapping.device << " " << mapping.inode << " " << mapping.name
         << " flags" << mapping.flags;
    view[name.str()] = text.str();
  }
  view["auxv"] = hex(contents(process / "auxv"));
}

// ---- the process ---------------------------------------------------------------------------

/// Fields of /proc/PID/stat by their numbers in proc(5).
std::vector<std::string> stat_fields(const fs::path& stat) {
  const std::string text = contents(stat);
  std::istringstream words{text.substr(text.rfind(')') + 1)};
  std::vector<std::string> fields(3);  // so that the state is number 3
  for (std::string word; words >> word;) fields.push_back(word);
  fields.resize(53);
  return fields;
}

/// By id, for their order means nothing.
void view_timers(const fs::path& process, ProcView& view) {
  std::ifstream lines{process / "timers"};
  std::string timer;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("ID:")) timer = "timer " + line.substr(4);
    view[timer] += line + "; ";
  }
}

void view_process(const fs::path& process, ProcView& view) {
  for (const char* file : {"cmdline", "environ", "comm", "limits", "personality", "oom_score_adj",
                           "coredump_filter", "timerslack_ns"})
    view[file] = contents(process / file);
  for (const char* name : {"exe", "cwd", "root"}) view[name] = link(process / name);
  view_timers(process, view);

  auto status = fields_of(process / "status");
  for (const char* field :
       {"Umask", "Uid", "Gid", "Groups", "ShdPnd", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff",
        "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "TracerPid", "THP_enabled", "CoreDumping"})
    view[std::string{"status "} + field] = status[field];

  const auto stat = stat_fields(process / "stat");
  constexpr std::pair<std::size_t, const char*> kBounds[] = {
      {26, "start_code"}, {27, "end_code"},  {28, "start_stack"}, {45, "start_data"},
      {46, "end_data"},   {47, "start_brk"}, {48, "arg_start"},   {49, "arg_end"},
      {50, "env_start"},  {51, "env_end"}};
  for (const auto& [number, name] : kBounds) view[std::string{"stat "} + name] = stat[number];
}

std::set<int> numbers_in(const fs::path& folder) {
  std::set<int> numbers;
  std::error_code gone;  // as a thread may be by now
  for (const auto& entry : fs::directory_iterator{folder, gone})
    numbers.insert(std::stoi(entry.path().filename()));
  return numbers;
}

// ---- threads -------------------------------------------------------------------------------

void view_thread(const fs::path& task, ProcView& view) {
  auto status = fields_of(task / "status");
  // As the thread itself sees it: the last of the namespaces.
  const std::string own_tid = status["NSpid"].substr(status["NSpid"].find_last_of(" \t") + 1);
  const std::string thread = "thread " + own_tid + " ";
  view[thread + "name"] = contents(task / "comm");
  for (const char* field : {"SigBlk", "SigPnd", "Cpus_allowed", "Mems_allowed"})
    view[thread + field] = status[field];
  for (const int number : numbers_in(task / "fd"))
    view[thread + "descriptors"] += std::to_string(number) + " ";
  const auto stat = stat_fields(task / "stat");
  for (const char* field :
       {"Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs",
        "Seccomp", "Seccomp_filters", "Speculation_Store_Bypass", "SpeculationIndirectBranch"})
    view[thread + field] = status[field];
  view[thread + "nice"] = stat[19];
  view[thread + "policy"] = stat[41];
}

// ---- descriptors ---------------------------------------------------------------------------

/// Names pipes and sockets by the order in which they appear, for their numbers mean nothing.
class PipeNames {
 public:
  std::string operator()(const std::string& link) {
    const std::string kind = link.substr(0, link.find(':'));
    if (kind != "pipe" && kind != "socket") return link;
    const auto number = names_.size();
    return names_.try_emplace(link, kind + " " + std::to_string(number)).first->second;
  }

 private:
  std::map<std::string, std::string> names_;
};

/// A watch of epoll that has fired for the last time cannot be told not to report EPOLLERR and
/// EPOLLHUP.
std::string without_hang_up(std::string line) {
  const std::size_t fired = line.find("events: 40000018");
  return fired == std::string::npos ? line : line.replace(fired, 16, "events: 40000000");
}

/// What only some kinds have, in an order of its own: the kernel's depends on addresses.
std::string special_fields(const fs::path& info) {
  static const std::set<std::string> kTold = {"tfd",         "clockid", "settime flags",
                                              "it_interval", "sigmask", "eventfd-semaphore"};
  std::multiset<std::string> told;
  std::ifstream lines{info};
  for (std::string line; std::getline(lines, line);)
    if (kTold.contains(line.substr(0, line.find(':'))))
      told.insert(without_hang_up(line.substr(0, line.find(" pos:"))));
  std::string text;
  for (const std::string& line : told) text += " " + line;
  return text;
}

void view_descriptors(const fs::path& process, ProcView& view) {
  PipeNames name;
  for (const int number : numbers_in(process / "fd")) {
    const std::string fd = "fd " + std::to_string(number);
    const fs::path info_file = process / "fdinfo" / std::to_string(number);
    auto info = fields_of(info_file);
    view[fd] = name(link(process / "fd" / std::to_string(number))) + " flags " + info["flags"] +
               " position " + info["pos"] + " count " + info["eventfd-count"] +
               special_fields(info_file);
  }
}

bool excepted(const std::string& fact, const std::vector<std::string>& except) {
  return std::any_of(except.begin(), except.end(),
                     [&](const std::string& start) { return fact.starts_with(start); });
}

const std::string& fact(const ProcView& view, const std::string& name) {
  static const std::string kNone = "(none)";
  const auto found = view.find(name);
  return found == view.end() ? kNone : found->second;
}

}  // namespace

ProcView proc_view(pid_t pid, Registrations registrations) {
  const fs::path process = "/proc/" + std::to_string(pid);
  ProcView view;
  view_process(process, view);
  view_memory(process, registrations, view);
  view_descriptors(process, view);
  for (const int tid : numbers_in(process / "task"))
    view_thread(process / "task" / std::to_string(tid), view);
  return view;
}

std::vector<std::string> differences(const ProcView& before, const ProcView& after,
                                     const std::vector<std::string>& except) {
  std::set<std::string> names;
  for (const auto& [name, text] : before) names.insert(name);
  for (const auto& [name, text] : after) names.insert(name);

  std::vector<std::string> lines;
  for (const std::string& name : names) {
    const std::string& was = fact(before, name);
    const std::string& is = fact(after, name);
    if (was != is && !excepted(name, except))
      lines.push_back(name + ": was \"" + was + "\", is \"" + is + "\"");
  }
  return lines;
}

}  // namespace test
