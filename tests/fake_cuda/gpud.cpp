// SPDX-License-Identifier: Apache-2.0
//
// The GPUs of the test driver: all device memory is in this process and nowhere else, so what was
// not saved is gone when it is killed.  Clients have no mapping and no copy of it: this process
// moves the bytes, from and into theirs.
//
//     gpud SOCKET [NUMBER:CHIP:MIB[:NAMED]]...     GPUs; by default one "1:90:1024", a "Fake GPU
//     90"
//
// FAKE_REFUSE_MEMORY in its environment makes it tell of free memory and give none.

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "wire.hpp"

namespace fake {
namespace {

constexpr std::int32_t kInvalidValue = 1;
constexpr std::int32_t kOutOfMemory = 2;
constexpr std::uint64_t kPiece = std::uint64_t{1} << 20;
constexpr unsigned char kScrub = 0xde;

struct Device {
  DeviceDescription description{};
  std::uint64_t used = 0;
};

std::mutex mutex;  // of what follows
std::vector<Device> devices;
std::uint64_t next_id = 1;

struct Memory {
  std::uint32_t device;
  std::uint64_t size;
  unsigned char* bytes;
};

void give_back(const Memory& memory) {
  std::memset(memory.bytes, kScrub, memory.size);
  ::munmap(memory.bytes, memory.size);
  const std::lock_guard lock{mutex};
  devices[memory.device].used -= memory.size;
}

class Client {
 public:
  explicit Client(int socket) : socket_(socket) {
    ::ucred peer{};
    ::socklen_t size = sizeof peer;
    ::getsockopt(socket_, SOL_SOCKET, SO_PEERCRED, &peer, &size);
    pid_ = peer.pid;
  }
  ~Client() {
    for (const auto& [id, memory] : memory_) give_back(memory);
    ::close(socket_);
  }

  void serve() {
    OrderMessage order;
    while (::recv(socket_, &order, sizeof order, MSG_WAITALL) == sizeof order) {
      ReplyMessage reply{};
      reply.result = carry_out(order, reply);
      if (::send(socket_, &reply, sizeof reply, MSG_NOSIGNAL) != sizeof reply) return;
    }
  }

 private:
  std::int32_t carry_out(const OrderMessage& order, ReplyMessage& reply) {
    switch (order.order) {
      case Order::devices: {
        const std::lock_guard lock{mutex};
        for (const Device& device : devices) reply.devices[reply.count++] = device.description;
        return 0;
      }
      case Order::info: {
        const std::lock_guard lock{mutex};
        if (order.device >= devices.size()) return kInvalidValue;
        const Device& device = devices[order.device];
        reply.total = device.description.total;
        reply.free = reply.total - device.used;
        return 0;
      }
      case Order::allocate:
        return allocate(order, reply);
      case Order::free: {
        const auto found = memory_.find(order.id);
        if (found == memory_.end()) return kInvalidValue;
        give_back(found->second);
        memory_.erase(found);
        return 0;
      }
      default:
        return work(order);
    }
  }

  std::int32_t allocate(const OrderMessage& order, ReplyMessage& reply) {
    if (std::getenv("FAKE_REFUSE_MEMORY") != nullptr) return kOutOfMemory;
    {
      const std::lock_guard lock{mutex};
      if (order.device >= devices.size() || order.size == 0) return kInvalidValue;
      Device& device = devices[order.device];
      if (order.size > device.description.total - device.used) return kOutOfMemory;
      device.used += order.size;
      reply.id = next_id++;
    }
    void* bytes = ::mmap(nullptr, order.size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bytes == MAP_FAILED) return kOutOfMemory;
    memory_[reply.id] = {order.device, order.size, static_cast<unsigned char*>(bytes)};
    return 0;
  }

  unsigned char* place(std::uint64_t id, std::uint64_t offset, std::uint64_t size) {
    const auto found = memory_.find(id);
    if (found == memory_.end()) return nullptr;
    const Memory& memory = found->second;
    if (offset > memory.size || size > memory.size - offset) return nullptr;
    return memory.bytes + offset;
  }

  std::int32_t work(const OrderMessage& order) {
    unsigned char* const bytes = place(order.id, order.offset, order.size);
    if (bytes == nullptr) return kInvalidValue;
    switch (order.order) {
      case Order::read:
      case Order::write:
        return move(bytes, order);
      case Order::fill8:
        std::memset(bytes, static_cast<int>(order.value), order.size);
        return 0;
      case Order::fill32:
      case Order::add1:
        for (std::uint64_t i = 0; i + 4 <= order.size; i += 4) {
          std::uint32_t number;
          std::memcpy(&number, bytes + i, 4);
          number =
              order.order == Order::add1 ? number + 1 : static_cast<std::uint32_t>(order.value);
          std::memcpy(bytes + i, &number, 4);
        }
        return 0;
      case Order::copy: {
        const unsigned char* const from = place(order.other, order.value, order.size);
        if (from == nullptr) return kInvalidValue;
        std::memmove(bytes, from, order.size);
        return 0;
      }
      default:
        return kInvalidValue;
    }
  }

  std::int32_t move(unsigned char* bytes, const OrderMessage& order) const {
    for (std::uint64_t done = 0; done < order.size;) {
      const std::uint64_t piece = std::min(kPiece, order.size - done);
      const ::iovec ours{bytes + done, piece};
      const ::iovec theirs{reinterpret_cast<void*>(order.address + done), piece};
      const ssize_t moved = order.order == Order::read
                                ? ::process_vm_writev(pid_, &ours, 1, &theirs, 1, 0)
                                : ::process_vm_readv(pid_, &ours, 1, &theirs, 1, 0);
      if (moved <= 0) return kInvalidValue;
      done += static_cast<std::uint64_t>(moved);
    }
    return 0;
  }

  int socket_;
  pid_t pid_;
  std::map<std::uint64_t, Memory> memory_;
};

Device parse_device(const char* text) {
  unsigned number = 0, chip = 0, named = 0;
  unsigned long long mib = 0;
  const int fields = std::sscanf(text, "%u:%u:%llu:%u", &number, &chip, &mib, &named);
  if (fields < 3) std::exit(2);
  if (fields == 3) named = chip;
  Device device;
  DeviceDescription& description = device.description;
  for (int i = 0; i < 16; ++i)
    description.uuid[i] = static_cast<unsigned char>(i == 15 ? number : 0x10 + i);
  std::snprintf(description.name, sizeof description.name, "Fake GPU %u", named);
  description.major = static_cast<std::int32_t>(chip / 10);
  description.minor = static_cast<std::int32_t>(chip % 10);
  description.total = mib << 20;
  return device;
}

}  // namespace
}  // namespace fake

int main(int count, char** arguments) {
  using namespace fake;
  if (count < 2) return 2;
  for (int i = 2; i < count; ++i) devices.push_back(parse_device(arguments[i]));
  if (devices.empty()) devices.push_back(parse_device("1:90:1024"));

  ::sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, arguments[1], sizeof address.sun_path - 1);
  ::unlink(arguments[1]);
  const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (::bind(listener, reinterpret_cast<::sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener, 64) != 0)
    return 1;
  std::puts("ready");
  std::fflush(stdout);
  for (;;) {
    const int socket = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) continue;
    std::thread{[socket] { Client{socket}.serve(); }}.detach();
  }
}
