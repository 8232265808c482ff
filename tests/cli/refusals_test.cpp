// SPDX-License-Identifier: Apache-2.0
//
// What `icecore snapshot` refuses: processes that it cannot take, and state that it cannot keep.
// Each time the target runs on, no file appears, and the message names the reason.
#include <catch2/catch.hpp>
#include <icecore/error.hpp>
#include <icecore/snapshot.hpp>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <thread>

#include "support/conversation.hpp"
#include "support/proc_view.hpp"
#include "support/restored.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::refusals_test {

namespace fs = std::filesystem;

Outcome snapshot(const std::string& pid, const fs::path& image) {
  return icecore({"snapshot", pid, "-o", image});
}

/// Exit status 1, all of `words` in the message, no file in the folder of the image.
void expect_refused(const Outcome& outcome, const fs::path& image,
                    const std::vector<std::string>& words) {
  INFO(outcome.err);
  CHECK(outcome.status == 1);
  CHECK(outcome.err.starts_with("icecore: "));
  for (const std::string& word : words) CHECK_THAT(outcome.err, Catch::Contains(word));
  CHECK_FALSE(fs::exists(image));
  for (const auto& left : fs::directory_iterator{image.parent_path()})
    CHECK(left.path().filename().string().find(image.filename()) == std::string::npos);
}

// ---- devices -----------------------------------------------------------------------------------

TEST_CASE("a device is opened again by its name, also one that was made anew, or its usual one") {
  TemporaryFolder folder;
  const std::string node = folder / "null";
  const auto make = [&](unsigned minor) {
    return ::mknod(node.c_str(), S_IFCHR | 0600, ::makedev(1, minor));
  };
  if (make(3) != 0 || ::access(node.c_str(), R_OK) != 0)
    return skip("no right to make devices here");
  const auto target =
      Target::of_command({"sh", "-c", "exec 9<>\"$1\"; exec \"$0\"", target_path("tiny"), node});
  const auto link = [&](pid_t pid) {
    return fs::read_symlink("/proc/" + std::to_string(pid) + "/fd/9");
  };
  const auto restored_link = [&] {
    CHECK(link(target.pid()) == node + " (deleted)");
    CHECK(snapshot(std::to_string(target.pid()), folder / "image").status == 0);
    Restored restored{folder / "image", {.pids = icecore::Pids::in_namespace}};
    CHECK(restored.running());
    const fs::path opened = link(restored.pid());
    fs::remove(folder / "image");
    return opened;
  };
  fs::remove(node);
  CHECK(restored_link() == "/dev/null");
  must(make(5), "mknod");  // another one
  CHECK(restored_link() == "/dev/null");
  fs::remove(node);
  must(make(3), "mknod");
  CHECK(restored_link() == node);
}

// ---- processes ---------------------------------------------------------------------------------

TEST_CASE("a process that does not exist is refused") {
  TemporaryFolder folder;
  Process process = Process::start({"true"}, {});
  process.wait();
  const std::string pid = std::to_string(process.pid());
  expect_refused(snapshot(pid, folder / "image"), folder / "image", {pid, "no such process"});
}

TEST_CASE("a zombie is refused") {
  TemporaryFolder folder;
  Process process = Process::start({"true"}, {});
  REQUIRE(process.ended(kPatience));  // and not waited for
  expect_refused(snapshot(std::to_string(process.pid()), folder / "image"), folder / "image",
                 {"zombie"});
}

TEST_CASE("a kernel thread is refused") {
  std::string name;
  std::ifstream{"/proc/2/comm"} >> name;
  if (name != "kthreadd") return skip("process 2 is no kernel thread here");
  TemporaryFolder folder;
  expect_refused(snapshot("2", folder / "image"), folder / "image", {"kernel thread"});
}

TEST_CASE("icecore itself is refused") {
  TemporaryFolder folder;
  const std::string image = folder / "image";
  const Outcome outcome =
      run({"sh", "-c", "exec \"$0\" snapshot $$ -o \"$1\"", ICECORE_TOOL, image});
  expect_refused(outcome, image, {"itself"});
}

TEST_CASE("a thread that is no process is refused") {
  TemporaryFolder folder;
  Target target{"many_threads", {"1"}};
  for (const auto& task :
       fs::directory_iterator{"/proc/" + std::to_string(target.pid()) + "/task"}) {
    const std::string tid = task.path().filename();
    if (tid != std::to_string(target.pid()))
      expect_refused(snapshot(tid, folder / "image"), folder / "image", {tid, "thread"});
  }
  CHECK(target.running());
}

TEST_CASE("a process of another user is refused") {
  if (::geteuid() != 0 || !in_path("setpriv")) return skip("needs root and setpriv");
  const Arguments as_nobody = {"setpriv",        "--reuid=65534",   "--regid=65534",
                               "--clear-groups", "--inh-caps=-all", ICECORE_TOOL};
  Arguments version = as_nobody;
  version.push_back("--version");
  if (run(version).status != 0) return skip("nobody may not run " ICECORE_TOOL);

  TemporaryFolder folder;
  fs::permissions(folder.path(), fs::perms::all);
  Target target{"tiny"};
  Arguments command = as_nobody;
  for (const std::string& word :
       {std::string{"snapshot"}, std::to_string(target.pid()), std::string{"-o"}})
    command.push_back(word);
  command.push_back(folder / "image");
  expect_refused(run(command), folder / "image", {std::to_string(target.pid())});
  CHECK(target.running());
}

TEST_CASE("who may not see mapped files is told what to have") {
  if (::geteuid() != 0 || !in_path("setpriv")) return skip("needs root and setpriv");
  TemporaryFolder folder;
  Target target{"tiny"};
  expect_refused(run({"setpriv", "--bounding-set=-checkpoint_restore,-sys_admin", ICECORE_TOOL,
                      "snapshot", std::to_string(target.pid()), "-o", folder / "image"}),
                 folder / "image", {"map_files", "as root", "CAP_CHECKPOINT_RESTORE"});
  CHECK(target.running());
}

TEST_CASE("a process that is traced already is refused") {
  TemporaryFolder folder;
  Target target{"tiny"};
  must(::ptrace(PTRACE_SEIZE, target.pid(), nullptr, nullptr), "PTRACE_SEIZE");
  expect_refused(snapshot(std::to_string(target.pid()), folder / "image"), folder / "image",
                 {"traced", std::to_string(::getpid())});
  must(::ptrace(PTRACE_INTERRUPT, target.pid(), nullptr, nullptr), "PTRACE_INTERRUPT");
  must(::waitpid(target.pid(), nullptr, __WALL), "waitpid");
  must(::ptrace(PTRACE_DETACH, target.pid(), nullptr, nullptr), "PTRACE_DETACH");
  CHECK(target.running());
}

TEST_CASE("the target of a debugger is refused, and runs on without it") {
  if (!in_path("gdb")) return skip("gdb is not installed");
  TemporaryFolder folder;
  Target target{"tiny"};
  const std::string pid = std::to_string(target.pid());
  Conversation conversation = make_conversation();
  Process gdb = Process::start({"gdb", "-nx", "-q", "-p", pid}, conversation.streams());
  conversation.begin();
  conversation.tell("printf \"attached\\n\"");
  while (conversation.hear().find("attached") == std::string::npos) {
  }
  expect_refused(snapshot(pid, folder / "image"), folder / "image",
                 {"traced", std::to_string(gdb.pid())});
  conversation.tell("detach");
  conversation.tell("quit");
  gdb.wait();
  CHECK(target.running());
}

TEST_CASE("hardware breakpoints are refused") {
  TemporaryFolder folder;
  Target target{"tiny"};
  const pid_t pid = target.pid();
  must(::ptrace(PTRACE_SEIZE, pid, nullptr, nullptr), "PTRACE_SEIZE");
  must(::ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr), "PTRACE_INTERRUPT");
  must(::waitpid(pid, nullptr, __WALL), "waitpid");
  const auto place = [](int number) {
    return reinterpret_cast<void*>(offsetof(struct ::user, u_debugreg) +
                                   sizeof(long) * static_cast<std::size_t>(number));
  };
  constexpr long kWatchWrites = 1 | 1 << 16;  // register 0, one byte
  const bool set = ::ptrace(PTRACE_POKEUSER, pid, place(0), &folder) == 0 &&
                   ::ptrace(PTRACE_POKEUSER, pid, place(7), kWatchWrites) == 0;
  must(::ptrace(PTRACE_DETACH, pid, nullptr, nullptr), "PTRACE_DETACH");
  if (!set) return skip("this machine has no hardware breakpoints");
  expect_refused(snapshot(std::to_string(pid), folder / "image"), folder / "image", {"breakpoint"});
  CHECK(target.running());
}

TEST_CASE("of two snapshots of one target at once one is refused or both succeed") {
  TemporaryFolder folder;
  Target target{"large_memory", {"64"}};
  const std::string pid = std::to_string(target.pid());
  const Descriptor nothing{must(::open("/dev/null", O_RDWR | O_CLOEXEC), "/dev/null")};
  const Streams quiet = {nothing.get(), nothing.get(), nothing.get()};
  std::vector<Process> snapshots;
  for (const char* name : {"first", "second", "third"})
    snapshots.push_back(
        Process::start({ICECORE_TOOL, "snapshot", pid, "-o", folder / name, "--no-fsync"}, quiet));
  int complete = 0;
  for (Process& snapshot : snapshots) {
    const int status = exit_status(snapshot.wait());
    CHECK((status == 0 || status == 1));
    complete += status == 0;
  }
  CHECK(complete >= 1);
  int images = 0;
  for (const auto& image : fs::directory_iterator{folder.path()}) {
    ++images;
    CHECK(icecore({"verify", image.path()}).status == 0);
  }
  CHECK(images == complete);
  CHECK(target.ask("check?") == "ok");
}

TEST_CASE("wrong usage has exit status 2") {
  for (const Arguments& arguments : std::vector<Arguments>{{},
                                                           {"nonsense"},
                                                           {"snapshot"},
                                                           {"snapshot", "1"},
                                                           {"snapshot", "x", "-o", "i"},
                                                           {"snapshot", "0", "-o", "i"},
                                                           {"snapshot", "-3", "-o", "i"},
                                                           {"restore"},
                                                           {"restore", "i", "--pids", "some"},
                                                           {"restore", "i", "--external", "x"},
                                                           {"core", "i"}}) {
    const Outcome outcome = icecore(arguments);
    INFO(outcome.err);
    CHECK(outcome.status == 2);
    CHECK_FALSE(outcome.err.empty());
  }
}

// ---- states ------------------------------------------------------------------------------------

struct Refused {
  std::string kind;                ///< of targets/refused_states
  std::vector<std::string> words;  ///< in the message
};

const Refused kRefused[] = {
    {"child", {"child"}},
    {"zombie", {"child"}},
    {"tcp_connection", {"fd ", "TCP connection from 127.0.0.1 port", "to 127.0.0.1 port"}},
    {"packet_socket", {"fd ", "socket of family 17"}},
    {"filtered_socket", {"fd ", "SO_ATTACH_BPF"}},
    {"descriptor_on_its_way", {"a descriptor that waits", "open nowhere else", "Epoll"}},
    {"unaccepted_bytes", {"fd ", "unix socket", "waits to be accepted"}},
    {"lost_epoll_watch", {"fd ", "epoll", "no descriptor"}},
    {"busy_epoll", {"fd ", "epoll", "polls busily"}},
    {"io_uring", {"fd ", "io_uring"}},
    {"short_code", {"thread ", "32-bit code"}},
    {"bpf_map", {"fd ", "BPF object"}},
    {"perf_event", {"fd ", "perf event"}},
    {"landlock_rules", {"fd ", "landlock ruleset"}},
    {"landlock", {"process ", "lives under Landlock rules"}},
    {"landlock_many", {"process ", "lives under Landlock rules"}},
    {"landlock_network", {"process ", "lives under Landlock rules"}},
    {"landlock_thread", {"thread ", "lives under Landlock rules"}},
    {"landlock_nobody", {"process ", "lives under Landlock rules"}},
    {"mount_context", {"fd ", "fscontext"}},
    {"lost_leader", {"first thread"}},
    {"common_terminal", {"fd ", "pseudo terminal /dev/pts/", "is open in process"}},
    {"lost_name", {"fd ", "deleted", "another"}},
    {"hidden_mount", {"fd ", "deleted", "file system"}},
    {"supervised", {"seccomp", "supervisor"}},
    {"vfork", {"vfork"}},
    {"ambiguous_timer", {"timer", "CLOCK_THREAD_CPUTIME_ID"}},
    {"thread_keyring", {"keyring"}},
    {"own_segments", {"modify_ldt"}},
    {"user_dispatch", {"syscall user dispatch"}},
    {"time_of_children", {"time namespace"}},
    {"waiting_events", {"fd ", "inotify", "events wait"}},
    {"lost_watch", {"fd ", "inotify", "no path"}},
    {"fanotify", {"fd ", "fanotify"}},
    {"huge_memfd", {"fd ", "memfd", "huge pages"}},
    {"lost_folder", {"working directory", "deleted"}},
    {"read_only_segment", {"SysV shared memory", "SHM_RDONLY"}},
    {"common_segment", {"SysV shared memory", "others are attached"}},
    {"secret_memory", {"mapping", "secret memory"}},
    {"asynchronous_io", {"mapping", "asynchronous I/O"}},
    {"shared_huge_pages", {"mapping", "huge pages"}},
    {"userfaultfd", {"fd ", "userfaultfd"}},
    {"pidfd", {"fd ", "pidfd of process 1"}},
    {"lease on a mapped file", {"lease for writing", "mapped"}},
    {"lease on a deleted file", {"lease for writing", "deleted"}},
    {"lease being broken", {"LEASE", "BREAKING"}},
    {"foreign_owner", {"F_SETOWN", "process 1"}},
    {"foreign_process_file", {"fd ", "/proc/1/", "another process"}},
    {"message_queue", {"fd ", "POSIX message queue"}},
    {"lost_place", {"fd ", "O_PATH"}},
    {"mount_namespace", {"mnt", "namespace"}},
    {"user_namespace", {"user", "namespace"}},
    {"ipc_namespace", {"ipc", "namespace"}},
    {"changed_root", {"root"}},
    {"parent_death_signal", {"parent death signal"}},
};

TEST_CASE("state that cannot be kept is refused by name") {
  const Refused& refused = GENERATE(from_range(std::begin(kRefused), std::end(kRefused)));
  INFO(refused.kind);
  TemporaryFolder folder;
  fs::create_directory(folder / "images");
  const fs::path image = folder / "images" / "image";
  fs::permissions(folder.path(), fs::perms::all);
  try {
    Target target{"refused_states", {folder.path(), refused.kind}};
    expect_refused(snapshot(std::to_string(target.pid()), image), image, refused.words);
    CHECK(target.running());
  } catch (const NotHere& reason) {
    skip(refused.kind + ": " + reason.what());
  }
}

TEST_CASE("who cannot ask for Landlock rules refuses, and says what it needs") {
  if (::geteuid() != 0 || !in_path("setpriv")) return skip("needs root and setpriv");
  TemporaryFolder folder;
  try {
    Target target{"credentials"};
    expect_refused(run({"setpriv", "--bounding-set=-setuid,-setgid", ICECORE_TOOL, "snapshot",
                        std::to_string(target.pid()), "-o", folder / "image"}),
                   folder / "image", {"Landlock", "CAP_SETUID"});
    CHECK(target.running());
  } catch (const NotHere& reason) {
    skip(reason.what());
  }
}

/// Runs `work` on a thread that lives under rules which forbid nothing it does; false where there
/// are none.
template <class Work>
bool under_rules(Work work) {
  bool ran = false;
  std::thread{[&] {
    const std::uint64_t handled = 1 << 11;  // LANDLOCK_ACCESS_FS_MAKE_BLOCK
    const Descriptor rules{
        static_cast<int>(::syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0))};
    ran = rules.get() >= 0 && ::syscall(SYS_landlock_restrict_self, rules.get(), 0) == 0;
    if (ran) work();
  }}.join();
  return ran;
}

TEST_CASE("a process under the rules that icecore lives under needs them at restore") {
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  const bool ran = under_rules([&] {
    Target target{"tiny"};
    const Outcome taken =
        icecore({"snapshot", std::to_string(target.pid()), "--kill", "-o", image, "--no-fsync"});
    CHECK(taken.err == "");
    REQUIRE(taken.status == 0);
    target.process().await_end();
    RestoredByTool restored{image};
    CHECK(restored.running());
  });
  if (!ran) return skip("no Landlock here");
  const Outcome refused = icecore({"restore", image});
  CHECK(refused.status == 125);
  CHECK_THAT(refused.err, Catch::Contains("Landlock: the process lived under rules"));
  const Outcome checked = icecore({"check", image});
  CHECK(checked.status == 1);
  CHECK_THAT(checked.out, Catch::Contains("Landlock"));
}

/// State that one version keeps and another refuses.
const char* const kEasilyLost[] = {
    "locked_memory",  "named_memory",         "dont_fork",       "wipe_on_fork",     "dont_dump",
    "protection_key", "unshared_descriptors", "path_descriptor", "signal_driven_io", "flock"};

void expect_kept(Target& target, const fs::path& image) {
  const ProcView before = proc_view(target.pid());
  icecore::snapshot(target.pid(), image, {.kill = true, .fsync = false});
  target.process().await_end();
  Restored restored{image};
  CHECK(restored.ask("check?") == "ok");
  for (const std::string& difference : differences(before, proc_view(restored.pid())))
    FAIL_CHECK(difference);
}

TEST_CASE("state that is easily lost is kept or refused") {
  const std::string kind = GENERATE(from_range(std::begin(kEasilyLost), std::end(kEasilyLost)));
  INFO(kind);
  TemporaryFolder folder;
  try {
    Target target{"refused_states", {folder.path(), kind}};
    try {
      expect_kept(target, folder / "image");
    } catch (const icecore::Error& error) {
      CHECK(error.code() == icecore::Errc::unsupported);
      CHECK(target.ask("check?") == "ok");
    }
  } catch (const NotHere& reason) {
    skip(kind + ": " + reason.what());
  }
}

TEST_CASE("a TCP connection with others is reset in the restored process if that is wanted") {
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  Target target{"refused_states", {folder.path(), "tcp_connection"}};
  const Outcome taken = icecore({"snapshot", std::to_string(target.pid()), "--tcp", "close",
                                 "--kill", "-o", image, "--no-fsync"});
  INFO(taken.err);
  REQUIRE(taken.status == 0);
  target.process().await_end();
  RestoredByTool restored{image};
  CHECK(restored.ask("check?") == "ok");
  CHECK(restored.ask("reset?") == "yes");
}

TEST_CASE("every reason is in one message") {
  TemporaryFolder folder;
  fs::create_directory(folder / "images");
  const fs::path image = folder / "images" / "image";
  Target target{"refused_states",
                {folder.path(), "packet_socket", "lost_epoll_watch", "pidfd", "thread_keyring",
                 "lost_name", "child", "parent_death_signal"}};
  expect_refused(snapshot(std::to_string(target.pid()), image), image,
                 {"socket", "epoll", "pidfd", "keyring", "deleted", "child", "death signal"});
  CHECK(target.running());
}

TEST_CASE("a port that is in use here is named before anything starts") {
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  Target target{"listening_sockets", {folder.path()}};
  icecore::snapshot(target.pid(), image, {.fsync = false});
  const Outcome refused = icecore({"restore", image});
  INFO(refused.err);
  CHECK(refused.status == 125);
  for (const char* const words :
       {"TCP socket: 127.0.0.1 port", "UDP socket: 127.0.0.1 port", "/stream is in use here"})
    CHECK_THAT(refused.err, Catch::Contains(words));
  CHECK(target.ask("check?") == "ok");
}

// ---- descriptors that lead outside --------------------------------------------------------------

TEST_CASE("a fifo that others hold needs a word at restore") {
  TemporaryFolder folder;
  Target target{"refused_states", {folder.path(), "fifo"}};
  const fs::path image = folder / "image";
  const Outcome taken =
      icecore({"snapshot", std::to_string(target.pid()), "--kill", "-o", image, "--no-fsync"});
  INFO(taken.err);
  REQUIRE(taken.status == 0);
  target.process().await_end();

  const Outcome refused = icecore({"restore", image});
  INFO(refused.err);
  CHECK(refused.status == 125);
  CHECK_THAT(refused.err, Catch::Contains("--external 3=") && Catch::Contains("fifo"));

  for (const std::string& instead : {std::string{"3=close"}, std::string{"3=/dev/null"},
                                     "3=" + (folder / "fifo").string(), std::string{"3=fd:2"}}) {
    INFO(instead);
    RestoredByTool restored{image, {"--external", instead}};
    CHECK(restored.running());
  }
}

}  // namespace test::refusals_test
