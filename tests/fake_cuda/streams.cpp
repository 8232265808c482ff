// SPDX-License-Identifier: Apache-2.0
//
// Streams, events and modules of the test driver.
#include "streams.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "process.hpp"
#include "raw.hpp"

namespace fake {
namespace {

enum class Kernel : std::uintptr_t { none, fill, add1, spin_ms };

Result launch(Kernel kernel, void** arguments) {
  const auto argument = [&]<class T>(int i, T) { return *static_cast<T*>(arguments[i]); };
  switch (kernel) {
    case Kernel::fill:
      return change(Order::fill32, argument(0, DeviceAddress{}), std::uint64_t{argument(2, 0U)} * 4,
                    argument(1, 0U));
    case Kernel::add1:
      return change(Order::add1, argument(0, DeviceAddress{}), std::uint64_t{argument(1, 0U)} * 4,
                    0);
    case Kernel::spin_ms:
      for (long left = argument(0, 0U); left > 0; --left) raw_pause_ms(1);
      return Result::success;
    case Kernel::none:
      break;
  }
  return Result::invalid_handle;
}

}  // namespace
}  // namespace fake

using namespace fake;

// ---- streams, events, modules -----------------------------------------------------------------

EXPORT Result cuStreamCreate(Stream** stream, unsigned flags) {
  return in_context([&] {
    if (stream == nullptr || flags > 1) return Result::invalid_value;
    *stream = new Stream;
    return Result::success;
  });
}

EXPORT Result cuStreamDestroy_v2(Stream* stream) {
  return in_context([&] {
    if (stream == nullptr) return Result::invalid_handle;
    delete stream;
    return Result::success;
  });
}

EXPORT Result cuStreamQuery(Stream* stream) {
  return in_context(
      [&] { return stream == nullptr || stream->idle() ? Result::success : Result::not_ready; });
}

EXPORT Result cuStreamSynchronize(Stream* stream) {
  return synchronized([&] {
    if (stream != nullptr) stream->synchronize();
  });
}

EXPORT Result cuCtxSynchronize() {
  return synchronized([] {
    for (std::uint32_t left = 0; (left = self.queued.load()) != 0;) futex_wait(self.queued, left);
  });
}

EXPORT Result cuLaunchHostFunc(Stream* stream, void (*function)(void*), void* data) {
  return in_context([&] {
    if (function == nullptr) return Result::invalid_value;
    return run_on(stream, [=] {
      function(data);
      return Result::success;
    });
  });
}

EXPORT Result cuEventCreate(Event** event, unsigned) {
  return in_context([&] {
    if (event == nullptr) return Result::invalid_value;
    *event = new Event;
    return Result::success;
  });
}

EXPORT Result cuEventRecord(Event* event, Stream* stream) {
  return in_context([&] {
    if (event == nullptr) return Result::invalid_handle;
    unsigned number = 0;
    {
      const std::lock_guard lock{event->mutex};
      number = ++event->recorded;
    }
    return run_on(stream, [=] {
      const std::lock_guard lock{event->mutex};
      event->reached = std::max(event->reached, number);
      event->changed.notify_all();
      return Result::success;
    });
  });
}

EXPORT Result cuEventQuery(Event* event) {
  return in_context([&] {
    if (event == nullptr) return Result::invalid_handle;
    const std::lock_guard lock{event->mutex};
    return event->reached == event->recorded ? Result::success : Result::not_ready;
  });
}

EXPORT Result cuEventSynchronize(Event* event) {
  if (event == nullptr) return Result::invalid_handle;
  return synchronized([&] {
    std::unique_lock lock{event->mutex};
    event->changed.wait(lock, [&] { return event->reached == event->recorded; });
  });
}

EXPORT Result cuEventDestroy_v2(Event* event) {
  return in_context([&] {
    if (event == nullptr) return Result::invalid_handle;
    delete event;
    return Result::success;
  });
}

namespace {
struct Module {
  DeviceAddress counter;
};
}  // namespace

EXPORT Result cuModuleLoadData(Module** module, const void* image) {
  return in_context([&] {
    if (module == nullptr || image == nullptr) return Result::invalid_value;
    auto* const made = new Module{};
    const Result result = allocate(Range::Kind::module, 4, &made->counter);
    if (result == Result::success) *module = made;
    return result;
  });
}

EXPORT Result cuModuleGetFunction(void** function, Module* module, const char* name) {
  return in_context([&] {
    if (function == nullptr || module == nullptr || name == nullptr) return Result::invalid_value;
    const std::string wanted = name;
    const Kernel kernel = wanted == "fill"      ? Kernel::fill
                          : wanted == "add1"    ? Kernel::add1
                          : wanted == "spin_ms" ? Kernel::spin_ms
                                                : Kernel::none;
    if (kernel == Kernel::none) return Result::not_found;
    *function = reinterpret_cast<void*>(kernel);
    return Result::success;
  });
}

EXPORT Result cuModuleGetGlobal_v2(DeviceAddress* address, std::size_t* size, Module* module,
                                   const char* name) {
  return in_context([&] {
    if (module == nullptr || name == nullptr) return Result::invalid_value;
    if (std::strcmp(name, "counter") != 0) return Result::not_found;
    if (address != nullptr) *address = module->counter;
    if (size != nullptr) *size = 4;
    return Result::success;
  });
}

EXPORT Result cuLaunchKernel(void* function, unsigned, unsigned, unsigned, unsigned, unsigned,
                             unsigned, unsigned, Stream* stream, void** arguments, void**) {
  return in_context([&] {
    const auto kernel = static_cast<Kernel>(reinterpret_cast<std::uintptr_t>(function));
    if (kernel == Kernel::none || arguments == nullptr) return Result::invalid_handle;
    // The arguments are the caller's for the time of the call only.
    struct Copied {
      std::uint64_t values[3];
    };
    Copied copied{};
    const int count = kernel == Kernel::fill ? 3 : kernel == Kernel::add1 ? 2 : 1;
    for (int i = 0; i < count; ++i)
      std::memcpy(&copied.values[i], arguments[i],
                  i == 0 && kernel != Kernel::spin_ms ? sizeof(DeviceAddress) : sizeof(unsigned));
    return run_on(stream, [=]() mutable {
      void* places[] = {&copied.values[0], &copied.values[1], &copied.values[2]};
      return launch(kernel, places);
    });
  });
}
