// SPDX-License-Identifier: Apache-2.0
//
// The thread that cuInit makes, which does what a controller asks.  Raw system calls only, nothing
// that allocates or takes a lock: every other thread may stand still with a lock in its hand.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "process.hpp"
#include "raw.hpp"

namespace fake {
namespace {

constexpr const char* kThreadName = "cuda00000000001";

struct Injection {
  enum class Kind { none, slow, fail, hang, die, skip, storm } kind;
  long value;
};

bool starts_with(const char*& text, const char* word) {
  const char* at = text;
  for (; *word != '\0'; ++word, ++at)
    if (*at != *word) return false;
  if (*at != ' ' && *at != '\n' && *at != '\0') return false;
  text = *at == ' ' ? at + 1 : at;
  return true;
}

/// A file of FAKE_CUDA_DIR.
struct Path {
  char text[128];
  explicit Path(const char* name) {
    std::size_t at = 0;
    for (const char* c = self.folder; *c != '\0'; ++c) text[at++] = *c;
    text[at++] = '/';
    for (; *name != '\0'; ++name) text[at++] = *name;
    text[at] = '\0';
  }
};

constexpr struct {
  const char* word;
  Injection::Kind kind;
} kInjections[] = {{"slow", Injection::Kind::slow}, {"fail", Injection::Kind::fail},
                   {"hang", Injection::Kind::hang}, {"die", Injection::Kind::die},
                   {"skip", Injection::Kind::skip}, {"storm", Injection::Kind::storm}};

Injection injection_for(const char* call) {
  const Path path{"inject"};
  const long file = raw(SYS_open, as_long(path.text), O_RDONLY | O_CLOEXEC);
  if (file < 0) return {Injection::Kind::none, 0};
  char text[512];
  const long size = raw(SYS_read, file, as_long(text), sizeof text - 1);
  raw(SYS_close, file);
  if (size <= 0) return {Injection::Kind::none, 0};
  text[size] = '\0';
  for (const char* line = text; *line != '\0';) {
    const char* word = line;
    if (starts_with(word, call)) {
      Injection found{Injection::Kind::none, 0};
      for (const auto& injection : kInjections)
        if (starts_with(word, injection.word)) {
          found.kind = injection.kind;
          break;
        }
      for (; *word >= '0' && *word <= '9'; ++word) found.value = found.value * 10 + (*word - '0');
      return found;
    }
    while (*line != '\0' && *line != '\n') ++line;
    if (*line == '\n') ++line;
  }
  return {Injection::Kind::none, 0};
}

void say_began() {
  const Path path{"began"};
  raw(SYS_close, raw(SYS_open, as_long(path.text), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

/// As if somebody sent them: to the kernel that is the same.
void storm(long rounds) {
  const long pid = raw(SYS_getpid), tid = raw(SYS_gettid);
  for (long i = 0; i < rounds; ++i)
    for (const int signal : {SIGWINCH, SIGCONT, SIGURG}) raw(SYS_tgkill, pid, tid, signal);
}

bool name_is_mine() {
  char name[16] = {};
  raw(SYS_prctl, PR_GET_NAME, as_long(name));
  const char* wanted = kThreadName;
  for (const char* c = name; *c != '\0' || *wanted != '\0'; ++c, ++wanted)
    if (*c != *wanted) return false;
  return true;
}

}  // namespace

void open_devices() {
  for (DeviceFile& file : self.files) {
    const long opened = raw(SYS_open, as_long(file.path), O_RDWR | O_CLOEXEC);
    if (opened < 0) continue;
    if (file.number < 0) {
      file.number = static_cast<int>(opened);
    } else if (opened != file.number) {
      raw(SYS_dup3, opened, file.number, O_CLOEXEC);
      raw(SYS_close, opened);
    }
  }
}

/// Whoever has put something else there is at fault.
bool map_devices() {
  const auto map = [](std::uint64_t& at, std::uint64_t size, int file, int protection) {
    const long flags = MAP_SHARED | MAP_NORESERVE | (at != 0 ? MAP_FIXED_NOREPLACE : 0);
    const long mapped =
        raw(SYS_mmap, static_cast<long>(at), static_cast<long>(size), protection, flags, file, 0);
    if (mapped < 0 || (at != 0 && static_cast<std::uint64_t>(mapped) != at)) return false;
    at = static_cast<std::uint64_t>(mapped);
    return true;
  };
  return map(self.window, kWindow, self.files[kUvmFile].number, PROT_NONE) &&
         map(self.device_page, 4096, self.files[kGpuFile].number, PROT_READ);
}

namespace {

void close_files() {
  for (const DeviceFile& file : self.files)
    if (file.number >= 0) raw(SYS_close, file.number);
}

void close_devices() {
  raw(SYS_munmap, static_cast<long>(self.window), static_cast<long>(kWindow));
  raw(SYS_munmap, static_cast<long>(self.device_page), 4096);
  close_files();
  raw(SYS_close, self.socket);
  self.socket = -1;
}

void open_gate() {
  self.gate = 0;
  futex_wake_all(self.gate);
}

std::int32_t lock(std::uint32_t timeout_ms) {
  const long end = raw_now_ms() + timeout_ms;
  self.gate = 1;
  while (self.inflight.load() != 0 || self.queued.load() != 0) {
    if (timeout_ms != 0 && raw_now_ms() >= end) {
      open_gate();
      return 600;
    }
    raw_pause_ms(1);
  }
  return 0;
}

/// Every allocation, one behind the other in one new mapping.
std::int32_t move_all(Order what) {
  std::uint64_t at = self.carrier;
  for (const Physical& physical : self.physical) {
    if (!physical.used) continue;
    ReplyMessage reply;
    const std::int32_t result =
        order_raw({.order = what, .id = physical.id, .size = physical.size, .address = at}, reply);
    if (result != 0) return result;
    at += (physical.size + 4095) / 4096 * 4096;
  }
  return 0;
}

std::int32_t checkpoint(bool skip) {
  if (const std::int32_t result = self.unsupported.load(); result != 0) return result;
  self.carrier_size = 0;
  for (const Physical& physical : self.physical)
    if (physical.used) self.carrier_size += (physical.size + 4095) / 4096 * 4096;
  if (self.carrier_size != 0) {
    const long mapped = raw(SYS_mmap, 0, static_cast<long>(self.carrier_size),
                            PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped < 0) return 2;
    self.carrier = static_cast<std::uint64_t>(mapped);
    if (const std::int32_t result = skip ? 0 : move_all(Order::read); result != 0) {
      raw(SYS_munmap, mapped, static_cast<long>(self.carrier_size));
      return result;
    }
  }
  close_devices();
  return 0;
}

bool same_bytes(const void* a, const void* b, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i)
    if (static_cast<const char*>(a)[i] != static_cast<const char*>(b)[i]) return false;
  return true;
}

/// For each device of old, which it is now; -1 when there is none or it is another chip.
bool choose_devices(const GpuPair* pairs, std::uint32_t count, const ReplyMessage& now,
                    int (&chosen)[kMaxDevices]) {
  if (count != 0 && count != static_cast<std::uint32_t>(self.device_count)) return false;
  for (int i = 0; i < self.device_count; ++i) {
    const unsigned char* wanted = self.devices[i].uuid;
    if (count != 0) {
      wanted = nullptr;
      for (std::uint32_t p = 0; p < count; ++p)
        if (same_bytes(pairs[p].old_uuid.bytes, self.devices[i].uuid, 16))
          wanted = pairs[p].new_uuid.bytes;
      if (wanted == nullptr) return false;
    }
    chosen[i] = -1;
    for (std::uint32_t d = 0; d < now.count; ++d)
      if (same_bytes(now.devices[d].uuid, wanted, 16) &&
          now.devices[d].major == self.devices[i].major &&
          now.devices[d].minor == self.devices[i].minor)
        chosen[i] = static_cast<int>(d);
    if (chosen[i] < 0) return false;
  }
  return true;
}

void forget_empty_reservations() {
  for (Range& range : self.ranges) {
    if (range.kind != Range::Kind::reserved) continue;
    bool empty = true;
    for (const Map& map : self.maps)
      empty = empty && !(map.used && overlaps(map.start, map.size, range.start, range.size));
    if (empty) range.kind = Range::Kind::none;
  }
}

std::int32_t restore(const Request& request, bool forgets) {
  if (self.restore_failed) return 304;
  open_devices();  // at the numbers that they had, before anything else takes one
  self.socket = connect_daemon();
  if (self.socket < 0) {
    close_files();
    return 304;
  }
  ReplyMessage now;
  const OrderMessage list{.order = Order::devices};
  int chosen[kMaxDevices] = {};
  if (order_raw(list, now) != 0 || !choose_devices(request.pairs, request.argument, now, chosen)) {
    raw(SYS_close, self.socket);
    close_files();
    return 1;
  }
  for (Physical& physical : self.physical) {
    if (!physical.used) continue;
    physical.device = static_cast<std::uint32_t>(chosen[physical.device]);
    ReplyMessage reply;
    const std::int32_t result = order_raw(
        {.order = Order::allocate, .device = physical.device, .size = physical.size}, reply);
    if (result != 0) {
      self.restore_failed = true;  // what it has grabbed stays grabbed
      return result;
    }
    physical.id = reply.id;
  }
  if (!map_devices()) {
    self.restore_failed = true;
    return 304;
  }
  if (const std::int32_t result = move_all(Order::write); result != 0) {
    self.restore_failed = true;
    return result;
  }
  if (self.carrier_size != 0)
    raw(SYS_munmap, static_cast<long>(self.carrier), static_cast<long>(self.carrier_size));
  for (int i = 0; i < self.device_count; ++i) self.devices[i] = now.devices[chosen[i]];
  if (forgets) forget_empty_reservations();
  return 0;
}

/// What of a call does not follow from the table.
std::int32_t do_work(const Request& request, bool skip) {
  switch (request.call) {
    case Call::lock:
      return lock(request.argument);
    case Call::checkpoint:
      return checkpoint(skip);
    case Call::restore:
      return restore(request, skip);
    case Call::state:
    case Call::unlock:
      break;
  }
  return 0;
}

std::int32_t carry_out(const Request& request, std::int32_t& value) {
  if (request.call > Call::unlock) return 1;
  if (!name_is_mine()) return 304;
  const Injection injected = injection_for(kCallNames[static_cast<int>(request.call)]);
  switch (injected.kind) {
    case Injection::Kind::slow:
      say_began();
      for (long ms = 0; ms < injected.value; ++ms) raw_pause_ms(1);
      break;
    case Injection::Kind::fail:
      return static_cast<std::int32_t>(injected.value);
    case Injection::Kind::hang:
      say_began();
      for (;;) raw_pause_ms(1000);
    case Injection::Kind::die:
      raw(SYS_kill, raw(SYS_getpid), SIGKILL);
      break;
    case Injection::Kind::storm:
      storm(injected.value);
      break;
    case Injection::Kind::none:
    case Injection::Kind::skip:
      break;
  }
  const Transition row = transition(request.call, self.state.load());
  std::int32_t result = static_cast<std::int32_t>(row.result);
  if (result == 0) result = do_work(request, injected.kind == Injection::Kind::skip);
  if (result == 0) self.state = row.to;
  if (result == 0 && request.call == Call::unlock) open_gate();
  value = static_cast<std::int32_t>(self.state.load());
  return result;
}

}  // namespace

void* restore_thread(void*) {
  raw(SYS_prctl, PR_SET_NAME, as_long(kThreadName));
  self.header.restore_thread = static_cast<std::int32_t>(raw(SYS_gettid));
  self.has_begun = 1;
  futex_wake_all(self.has_begun);
  for (;;) {
    Request request;
    const long size = raw(SYS_read, self.request_source, as_long(&request), sizeof request);
    if (size != sizeof request) continue;
    Response response{request.sequence, 0, 0};
    response.result = carry_out(request, response.value);
    raw(SYS_write, self.response_sink, as_long(&response), sizeof response);
  }
}

}  // namespace fake
