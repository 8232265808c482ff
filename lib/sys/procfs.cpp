// SPDX-License-Identifier: Apache-2.0
#include "sys/procfs.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <memory>
#include <span>

#include "sys/call.hpp"
#include "sys/fd.hpp"

namespace icecore::sys {
namespace {

/// How the kernel makes a file's text: all of it at once (seq_file's single_open), so that a read
/// that leaves room has seen its end, or piece by piece.
enum class Made { at_once, in_pieces };

/// Most files fit on the stack, and are then kept in no more memory than they need.
std::optional<std::string> read_all(const Fd& file, Made made = Made::in_pieces) {
  std::array<char, 4096> first;
  std::string text;
  std::span<char> room{first};
  std::size_t used = 0;
  for (;;) {
    const ssize_t got = ::read(file.get(), room.data() + used, room.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::nullopt;
    used += static_cast<std::size_t>(got);
    if (got == 0 || (made == Made::at_once && used < room.size())) break;
    if (used < room.size()) continue;
    if (text.empty()) text.assign(first.begin(), first.end());
    text.resize(text.size() * 2);
    room = text;
  }
  if (text.empty()) return std::string{first.data(), used};
  text.resize(used);
  return text;
}

std::vector<int> list_numbers(const std::string& folder) {
  std::vector<int> numbers;
  const std::unique_ptr<DIR, int (*)(DIR*)> open{::opendir(folder.c_str()), &::closedir};
  if (!open) return numbers;
  while (const dirent* entry = ::readdir(open.get()))
    if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9')
      numbers.push_back(std::atoi(entry->d_name));
  return numbers;
}

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> words;
  std::size_t at = 0;
  while ((at = text.find_first_not_of(" \t\n", at)) != std::string_view::npos) {
    const std::size_t end = std::min(text.find_first_of(" \t\n", at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}

template <class Number>
Number parse(std::string_view text, int base = 10) {
  Number number{};
  std::from_chars(text.data(), text.data() + text.size(), number, base);
  return number;
}

}  // namespace

namespace {

std::optional<std::string> try_read_made(const std::string& path, Made made) {
  const Fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!file) {
    if (errno == ENOENT || errno == ESRCH) return std::nullopt;
    throw_errno(errno, fmt::format("open {}", path));
  }
  auto text = read_all(file, made);
  if (!text && errno != ESRCH) throw_errno(errno, fmt::format("read {}", path));
  return text;
}

}  // namespace

std::optional<std::string> try_read_file(const std::string& path) {
  return try_read_made(path, Made::in_pieces);
}

std::optional<std::string> try_read_process_file(pid_t tid, std::string_view name) {
  return try_read_made(fmt::format("/proc/{}/{}", tid, name), Made::at_once);
}

std::string read_process_file(pid_t tid, std::string_view name) {
  if (auto text = try_read_process_file(tid, name)) return std::move(*text);
  throw_errno(ESRCH, fmt::format("read /proc/{}/{}", tid, name));
}

std::string read_file(const std::string& path) {
  if (auto text = try_read_file(path)) return std::move(*text);
  throw_errno(ENOENT, fmt::format("read {}", path));
}

void for_each_line(const std::string& path, const std::function<void(std::string_view)>& take) {
  const Fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!file) throw_errno(errno, fmt::format("open {}", path));
  std::string text(std::size_t{64} << 10, '\0');
  for (std::size_t used = 0;;) {
    if (used == text.size()) text.resize(text.size() * 2);
    const auto got = static_cast<std::size_t>(
        checked([&] { return ::read(file.get(), text.data() + used, text.size() - used); },
                "read {}", path));
    used += got;
    std::string_view lines{text.data(), used};
    for (std::size_t end; (end = lines.find('\n')) != std::string_view::npos;) {
      take(lines.substr(0, end));
      lines.remove_prefix(end + 1);
    }
    if (got == 0) {
      if (!lines.empty()) take(lines);
      return;
    }
    used = lines.size();
    std::ranges::copy(lines, text.begin());
  }
}

std::string readable_text(const std::string& path) {
  const Fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  return file ? read_all(file).value_or("") : "";
}

std::string read_until(const std::string& path, std::string_view line_start) {
  constexpr std::size_t kPiece = 1024;
  const Fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!file) throw_errno(errno, fmt::format("open {}", path));
  std::string text;
  for (std::size_t used = 0;; used = text.size()) {
    const std::size_t line = text.find(line_start);
    if (line != std::string::npos && text.find('\n', line + 1) != std::string::npos) return text;
    text.resize(used + kPiece);
    const ssize_t got =
        checked([&] { return ::read(file.get(), text.data() + used, kPiece); }, "read {}", path);
    text.resize(used + static_cast<std::size_t>(got));
    if (got == 0) return text;
  }
}

namespace {

std::optional<std::string> try_read_link_at(int folder, const char* name) {
  std::string target(4096, '\0');
  const ssize_t size = ::readlinkat(folder, name, target.data(), target.size());
  if (size < 0) return std::nullopt;
  target.resize(static_cast<std::size_t>(size));
  return target;
}

}  // namespace

std::optional<std::string> try_read_link(const std::string& path) {
  return try_read_link_at(AT_FDCWD, path.c_str());
}

std::string read_link(const std::string& path) {
  if (auto target = try_read_link(path)) return std::move(*target);
  throw_errno(errno, fmt::format("read link {}", path));
}

Links::Links(const std::string& folder)
    : folder_{::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)} {}

std::optional<std::string> Links::try_read(const char* name) const {
  return folder_ ? try_read_link_at(folder_.get(), name) : std::nullopt;
}

std::vector<pid_t> list_threads(pid_t pid) {
  return list_numbers(fmt::format("/proc/{}/task", pid));
}

std::vector<int> list_descriptors(pid_t pid) {
  auto numbers = list_numbers(fmt::format("/proc/{}/fd", pid));
  std::ranges::sort(numbers);
  return numbers;
}

std::vector<pid_t> list_processes() { return list_numbers("/proc"); }

std::vector<ListedTimer> list_timers(pid_t pid) {
  std::vector<ListedTimer> timers;
  const auto text = try_read_file(fmt::format("/proc/{}/timers", pid)).value_or("");
  const auto words = split(text);
  for (std::size_t i = 0; i + 1 < words.size(); i += 2) {
    const std::string_view name = words[i], value = words[i + 1];
    if (name == "ID:") timers.push_back({.id = parse<int>(value)});
    if (timers.empty()) continue;
    ListedTimer& timer = timers.back();
    const std::size_t slash = std::min(value.find('/'), value.size() - 1);
    if (name == "signal:") {
      timer.signal = parse<int>(value);
      timer.value = parse<std::uint64_t>(value.substr(slash + 1), 16);
    } else if (name == "notify:") {
      timer.notify = value.starts_with("none")     ? SIGEV_NONE
                     : value.starts_with("thread") ? SIGEV_THREAD
                                                   : SIGEV_SIGNAL;
      if (value.substr(slash).starts_with("/tid.")) timer.notify |= SIGEV_THREAD_ID;
      timer.target = parse<pid_t>(value.substr(std::min(slash + 5, value.size())));
    } else if (name == "ClockID:") {
      timer.clock = parse<int>(value);
    }
  }
  return timers;
}

std::vector<pid_t> list_children(pid_t pid) {
  std::vector<pid_t> children;
  for (const pid_t tid : list_threads(pid)) {
    const auto text = try_read_file(fmt::format("/proc/{}/task/{}/children", pid, tid));
    if (!text) continue;
    for (const auto word : split(*text)) children.push_back(parse<pid_t>(word));
  }
  return children;
}

std::optional<Status> Status::read(pid_t tid) {
  auto text = try_read_process_file(tid, "status");
  if (!text || text->empty()) return std::nullopt;
  return Status{std::move(*text)};
}

std::string_view Status::text(std::string_view field) const {
  std::string_view rest = text_;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (!line.starts_with(field) || line.size() <= field.size() || line[field.size()] != ':')
      continue;
    const std::size_t value = line.find_first_not_of(" \t", field.size() + 1);
    return value == std::string_view::npos ? std::string_view{} : line.substr(value);
  }
  return {};
}

std::uint64_t Status::number(std::string_view field, int base) const {
  return parse<std::uint64_t>(text(field), base);
}

std::vector<std::uint64_t> Status::numbers(std::string_view field) const {
  std::vector<std::uint64_t> numbers;
  for (const auto word : split(text(field))) numbers.push_back(parse<std::uint64_t>(word));
  return numbers;
}

bool is_zombie(pid_t tid) {
  const auto stat = read_stat(tid);
  return stat && (stat->state == 'Z' || stat->state == 'X');
}

bool is_in_tracing_stop(pid_t tid) {
  const auto stat = read_stat(tid);
  return stat && stat->state == 't';
}

std::optional<Stat> read_stat(pid_t tid) {
  const auto text = try_read_process_file(tid, "stat");
  if (!text) return std::nullopt;
  // The name stands in parentheses and may hold anything, also spaces and parentheses.
  const std::size_t name_end = text->rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  const auto words = split(std::string_view{*text}.substr(name_end + 1));
  // proc(5) numbers fields from 1; the state, words[0], is field 3.
  const auto field = [&](std::size_t number) {
    return number - 3 < words.size() ? words[number - 3] : std::string_view{};
  };
  const auto unsigned_field = [&](std::size_t number) {
    return parse<std::uint64_t>(field(number));
  };
  return Stat{
      .state = field(3).empty() ? '?' : field(3)[0],
      .parent = parse<pid_t>(field(4)),
      .group = parse<pid_t>(field(5)),
      .session = parse<pid_t>(field(6)),
      .terminal = static_cast<std::uint32_t>(parse<std::int32_t>(field(7))),
      .foreground = parse<pid_t>(field(8)),
      .flags = unsigned_field(9),
      .nice = parse<long>(field(19)),
      .start_time = unsigned_field(22),
      .start_code = unsigned_field(26),
      .end_code = unsigned_field(27),
      .start_stack = unsigned_field(28),
      .cpu = parse<int>(field(39)),
      .start_data = unsigned_field(45),
      .end_data = unsigned_field(46),
      .start_brk = unsigned_field(47),
      .arg_start = unsigned_field(48),
      .arg_end = unsigned_field(49),
      .env_start = unsigned_field(50),
      .env_end = unsigned_field(51),
  };
}

std::optional<SchedulerView> scheduler_view(pid_t tid) {
  const auto text = try_read_process_file(tid, "sched");
  if (!text) return std::nullopt;
  const auto value = [&](std::string_view name) -> std::string_view {
    const std::size_t at = text->find(name);
    const std::size_t colon = at == std::string::npos ? at : text->find(':', at);
    if (colon == std::string::npos) return {};
    const auto words = split(std::string_view{*text}.substr(colon + 1, 64));
    return words.empty() ? std::string_view{} : words[0];
  };
  // Milliseconds, with six digits of nanoseconds behind the point.
  const std::string_view ran = value("se.exec_start");
  const auto stat = read_stat(tid);
  if (ran.empty() || !stat) return std::nullopt;
  const std::size_t point = std::min(ran.find('.'), ran.size() - 1);
  return SchedulerView{.last_ran_ns = parse<std::int64_t>(ran.substr(0, point)) * 1'000'000 +
                                      parse<std::int64_t>(ran.substr(point + 1)),
                       .switches = parse<std::uint64_t>(value("nr_switches")),
                       .cpu = static_cast<unsigned>(stat->cpu)};
}

std::string sleeping_function(pid_t tid) {
  return try_read_file(fmt::format("/proc/{}/wchan", tid)).value_or("");
}

std::optional<std::int64_t> scheduler_clock_ns(unsigned cpu) {
  ::cpu_set_t before;
  ::cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(cpu, &only);
  if (::sched_getaffinity(0, sizeof before, &before) != 0 ||
      ::sched_setaffinity(0, sizeof only, &only) != 0)
    return std::nullopt;
  ::sched_yield();  // brings our own exec_start up to date, which else moves with the timer tick
  const auto view = scheduler_view(::gettid());
  ::sched_setaffinity(0, sizeof before, &before);
  if (!view || view->cpu != cpu) return std::nullopt;
  return view->last_ran_ns;
}

std::vector<WakingTimer> waking_timers() {
  using std::chrono::nanoseconds;
  std::vector<WakingTimer> timers;
  std::string text;
  try {
    text = read_file("/proc/timer_list");
  } catch (const Error&) {
    return timers;
  }
  const auto here = std::chrono::steady_clock::now();
  std::int64_t now_ns = 0;
  bool monotonic = false;
  std::uint64_t waking = 0;  // the timer of the line before, when it wakes a thread
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    const auto words = split(line);
    if (words.size() < 2) continue;
    if (words[0] == "now" && words[1] == "at" && words.size() > 2)
      now_ns = parse<std::int64_t>(words[2]);
    if (words[0] == ".index:") monotonic = words[1] == "0";
    const std::uint64_t id = waking;
    waking = 0;
    if (words.size() > 2 && words[1].starts_with('<') && words[2] == "hrtimer_wakeup,")
      waking = parse<std::uint64_t>(words[1].substr(1), 16);
    else if (id != 0 && monotonic && words.size() > 3 && words[1] == "expires")
      timers.push_back({id, here + nanoseconds{parse<std::int64_t>(words[3]) - now_ns}});
  }
  return timers;
}

std::optional<SleepingCall> sleeping_call(pid_t tid) {
  const auto text = try_read_process_file(tid, "syscall");
  if (!text || text->empty() || (*text)[0] < '0' || (*text)[0] > '9') return std::nullopt;
  const auto words = split(*text);
  SleepingCall call{.number = parse<long>(words[0])};
  for (std::size_t i = 0; i < 6 && i + 1 < words.size(); ++i)
    if (words[i + 1].starts_with("0x"))
      call.arguments[i] = parse<std::uint64_t>(words[i + 1].substr(2), 16);
  return call;
}

}  // namespace icecore::sys
