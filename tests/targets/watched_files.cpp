// SPDX-License-Identifier: Apache-2.0
//
// State: inotify: watches of a folder, of a file that is open, of one that is not, and of one that
// is watched once; numbers with gaps
// between them; an instance that watches nothing.
#include <sys/inotify.h>
#include <sys/ioctl.h>

#include <climits>

#include "target.hpp"

using namespace target;

static std::string folder;

static void touch(const std::string& name) {
  const int file = static_cast<int>(
      must(::open((folder + "/" + name).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600), name));
  must(::write(file, "x", 1), "write");
  ::close(file);
}

struct Event {
  int watch;
  std::uint32_t mask;
  std::string name;
};

static Event next_event(int instance) {
  static std::map<int, std::string> unread;
  std::string& bytes = unread[instance];
  if (bytes.empty()) {
    char buffer[sizeof(inotify_event) + NAME_MAX + 1];
    const auto size =
        static_cast<std::size_t>(must(::read(instance, buffer, sizeof buffer), "read an event"));
    bytes.assign(buffer, size);
  }
  inotify_event event{};
  std::memcpy(&event, bytes.data(), sizeof event);
  const Event found{event.wd, event.mask, event.len == 0 ? "" : bytes.data() + sizeof event};
  bytes.erase(0, sizeof event + event.len);
  return found;
}

static void expect_event(int instance, int watch, std::uint32_t mask, const std::string& name) {
  const Event event = next_event(instance);
  require(event.watch == watch && event.mask == mask && event.name == name,
          "event " + std::to_string(event.mask) + " of watch " + std::to_string(event.watch) +
              " for '" + event.name + "'");
}

static int watch(int instance, const std::string& path, std::uint32_t mask) {
  return static_cast<int>(must(::inotify_add_watch(instance, path.c_str(), mask), "watch"));
}

int main(int, char** arguments) {
  folder = arguments[1];
  for (const char* const name : {"open", "closed", "once"}) touch(name);
  must(::mkdir((folder + "/below").c_str(), 0700), "mkdir");
  const int instance = static_cast<int>(must(::inotify_init1(IN_NONBLOCK), "inotify_init1"));
  must(::inotify_init(), "inotify_init");
  must(::open((folder + "/open").c_str(), O_RDONLY), "open");
  const int gone = watch(instance, folder, IN_OPEN);
  must(::inotify_rm_watch(instance, gone), "inotify_rm_watch");
  expect_event(instance, gone, IN_IGNORED, "");
  const int of_folder = watch(instance, folder + "/below", IN_CREATE | IN_DELETE | IN_ONLYDIR);
  const int of_open = watch(instance, folder + "/open", IN_MODIFY);
  const int of_closed = watch(instance, folder + "/closed", IN_CLOSE_WRITE);
  int of_once = watch(instance, folder + "/once", IN_MODIFY | IN_ONESHOT);

  return serve([&] {
    const auto expect_nothing = [&] {
      int waiting = 0;
      must(::ioctl(instance, FIONREAD, &waiting), "FIONREAD");
      require(waiting == 0, "events that nothing caused");
    };
    expect_nothing();
    touch("below/new");
    expect_event(instance, of_folder, IN_CREATE, "new");
    must(::unlink((folder + "/below/new").c_str()), "unlink");
    expect_event(instance, of_folder, IN_DELETE, "new");
    touch("open");
    expect_event(instance, of_open, IN_MODIFY, "");
    touch("closed");
    expect_event(instance, of_closed, IN_CLOSE_WRITE, "");
    touch("once");
    expect_event(instance, of_once, IN_MODIFY, "");
    expect_event(instance, of_once, IN_IGNORED, "");
    const int again = watch(instance, folder + "/once", IN_MODIFY | IN_ONESHOT);
    require(again > of_once, "a watch has a number that another had");
    of_once = again;
    expect_nothing();
  });
}
