// SPDX-License-Identifier: Apache-2.0
//
// The C interface in a program that does many things at once: several threads restore while another
// takes snapshots, and meanwhile there are signals and forks.  A unit test, so that it is run under
// ThreadSanitizer.
#include <catch2/catch.hpp>
#include <icecore/icecore.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "support/conversation.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::c_threads_test {

std::atomic<int> signals_received;

/// Catch may be called by one thread only.
class Failures {
 public:
  void add(const std::string& text) {
    const std::lock_guard lock{mutex_};
    text_ += text + "\n";
  }
  std::string text() const { return text_; }

 private:
  std::mutex mutex_;
  std::string text_;
};

void require(bool condition, const char* otherwise) {
  if (!condition) throw std::runtime_error{otherwise};
}

void succeed(icecore_error* error) {
  if (error == nullptr) return;
  const std::string message = icecore_error_message(error);
  icecore_error_free(error);
  throw std::runtime_error{message};
}

/// A thread that does it again and again, until somebody else says that it is enough.
std::jthread again_and_again(Failures& failures, const std::function<void()>& work) {
  return std::jthread{[&failures, work](const std::stop_token& stop) {
    try {
      while (!stop.stop_requested()) work();
    } catch (const std::exception& error) {
      failures.add(error.what());
    }
  }};
}

void fork_once() {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  require(child > 0, "fork");
  while (::waitpid(child, nullptr, 0) == -1 && errno == EINTR) {
  }
}

icecore_process* run(const icecore_image* image, const icecore_restore_options& options,
                     bool prepared_first) {
  icecore_process* process = nullptr;
  if (!prepared_first) {
    succeed(icecore_restore(image, &options, &process));
    return process;
  }
  icecore_prepared* prepared = nullptr;
  succeed(icecore_prepare(image, &options, &prepared));
  succeed(icecore_start(prepared, &process));
  return process;
}

void restore_once(const std::string& path, const std::string& secret, bool prepared_first) {
  icecore_image* image = nullptr;
  succeed(icecore_open(path.c_str(), &image));
  Conversation conversation = make_conversation();
  const Streams streams = conversation.streams();
  const int standard[] = {streams.in, streams.out, streams.error};
  icecore_restore_options options{};
  options.struct_size = sizeof options;
  options.pids = ICECORE_PIDS_NAMESPACE;
  options.standard_streams = standard;
  succeed(icecore_check(image, &options));
  icecore_process* const process = run(image, options, prepared_first);
  conversation.begin();
  require(conversation.ask("secret?") == secret, "another secret");
  conversation.tell("exit 7");
  int status = 0;
  succeed(icecore_wait(process, &status));
  require(WIFEXITED(status) && WEXITSTATUS(status) == 7, "another status");
  icecore_process_free(process);
  icecore_image_free(image);
}

TEST_CASE("the C interface serves many threads at once") {
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = [](int) { ++signals_received; };
  ::sigaction(SIGUSR1, &action, &before);
  TemporaryFolder folder;
  Target target{"tiny"};
  const std::string secret = target.ask("secret?"), image = folder / "image";
  icecore_snapshot_options how{};
  how.struct_size = sizeof how;
  how.no_fsync = 1;
  how.copy_on_write = 1;
  succeed(icecore_snapshot(target.pid(), image.c_str(), &how, nullptr));

  Failures failures;
  {
    std::vector<std::jthread> busy;
    busy.push_back(again_and_again(failures, [] {
      ::kill(::getpid(), SIGUSR1);
      std::this_thread::sleep_for(std::chrono::microseconds{500});
    }));
    busy.push_back(again_and_again(failures, fork_once));
    busy.push_back(again_and_again(failures, [&] {
      const std::string other = folder / "other";
      succeed(icecore_snapshot(target.pid(), other.c_str(), &how, nullptr));
    }));
    std::vector<std::jthread> restorers;
    for (const bool prepared_first : {false, true, false})
      restorers.emplace_back([&, prepared_first] {
        try {
          for (int i = 0; i < 5; ++i) restore_once(image, secret, prepared_first);
        } catch (const std::exception& error) {
          failures.add(error.what());
        }
      });
  }
  CHECK(failures.text() == "");
  CHECK(signals_received > 0);
  CHECK(target.running());
  ::sigaction(SIGUSR1, &before, nullptr);
}

}  // namespace test::c_threads_test
