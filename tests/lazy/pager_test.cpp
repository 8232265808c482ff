// SPDX-License-Identifier: Apache-2.0
//
// A process whose memory is loaded as it touches it: whatever it does with it, and whatever happens
// to the pager and to the image, it never reads a wrong byte and never waits for ever.
#include <catch2/catch.hpp>
#include <fcntl.h>
#include <icecore/snapshot.hpp>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <optional>
#include <random>
#include <set>

#include "support/descriptor.hpp"
#include "support/pagers.hpp"
#include "support/patience.hpp"
#include "support/proc_view.hpp"
#include "support/restored.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::pager_test {

namespace fs = std::filesystem;
using icecore::Fill;
using icecore::Loading;
using icecore::Record;

icecore::RestoreOptions lazily(Fill fill) {
  return {.loading = Loading::lazy, .fill = fill, .record = Record::no};
}

/// The image of a target that is gone.
struct Fixture {
  TemporaryFolder folder;
  std::string secret;

  explicit Fixture(const std::string& name, const Arguments& arguments = {},
                   icecore::Encoding encoding = icecore::Encoding::raw) {
    Target target{name, arguments};
    secret = target.ask("secret?");
    icecore::snapshot(target.pid(), image(), {.encoding = encoding, .kill = true, .fsync = false});
    target.process().await_end();
  }

  fs::path image() const { return folder / "image"; }
  fs::path working_set() const { return folder / "image.ws"; }
};

/// Waits until every one of these processes has ended.
void await_end_of(const std::vector<pid_t>& pids) {
  for (const pid_t pid : pids) {
    const Descriptor process{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))};
    if (process.get() < 0) continue;  // it has, and has been reaped
    ::pollfd end = {process.get(), POLLIN, 0};
    if (::poll(&end, 1, static_cast<int>(kPatience.count())) != 1)
      throw std::runtime_error{"process " + std::to_string(pid) + " goes on"};
  }
}

#ifdef ICECORE_SANITIZED
constexpr int kRounds = 4;
#else
constexpr int kRounds = 20;
#endif

// ---- memory that changes -----------------------------------------------------------------------

TEST_CASE("memory that changes in every way while it is loaded is never wrong") {
  const auto encoding = GENERATE(icecore::Encoding::raw, icecore::Encoding::zstd);
  const auto fill = GENERATE(Fill::never, Fill::idle, Fill::now);
  INFO("encoding " << static_cast<int>(encoding) << ", fill " << static_cast<int>(fill));
  Fixture fixture{"memory_model", {}, encoding};
  Restored restored{fixture.image(), lazily(fill)};
  for (int round = 0; round < kRounds; ++round) REQUIRE(restored.ask("work 300") == "ok");
  CHECK(restored.ask("check?") == "ok");
  CHECK(restored.ask("secret?") == fixture.secret);
  const auto statistics = restored.process().pager_statistics();
  CHECK(statistics.lost_bytes == 0);
  if (fill == Fill::never) CHECK(statistics.faults > 0);
}

/// Of one of its userfaultfds, somebody waits for an answer that has not been read.
bool has_unread_fault(pid_t pager) {
  for (const auto& info : fs::directory_iterator{"/proc/" + std::to_string(pager) + "/fdinfo"}) {
    std::ifstream words{info.path()};
    int pending = 0;
    for (std::string word; words >> word;)
      if (word == "pending:" && words >> pending && pending > 0) return true;
  }
  return false;
}

/// The thread that waits for something no signal interrupts: for an event to be read.  0: none.
pid_t thread_in_event(pid_t pid) {
  for (const auto& task : fs::directory_iterator{"/proc/" + std::to_string(pid) + "/task"}) {
    std::ifstream file{task.path() / "stat"};
    std::string stat;
    std::getline(file, stat);
    if (stat.find(") D ") != std::string::npos) return std::atoi(task.path().filename().c_str());
  }
  return 0;
}

/// From now on `first` goes before `others`, whatever they are at.
void let_go_before(pid_t first, const std::vector<pid_t>& others) {
  ::cpu_set_t cpu;
  CPU_ZERO(&cpu);
  CPU_SET(::sched_getcpu(), &cpu);
  for (const pid_t other : others) must(::sched_setaffinity(other, sizeof cpu, &cpu), "affinity");
  must(::sched_setaffinity(first, sizeof cpu, &cpu), "affinity");
  const ::sched_param priority{.sched_priority = 1};
  must(::sched_setscheduler(first, SCHED_FIFO, &priority), "sched_setscheduler");
}

TEST_CASE("memory stays discarded when a fault next to it is answered in the same moment") {
  const auto encoding = GENERATE(icecore::Encoding::raw, icecore::Encoding::zstd);
  INFO("encoding " << static_cast<int>(encoding));
  Fixture fixture{"discards_beside_faults", {}, encoding};
  Restored restored{fixture.image(), lazily(Fill::never)};
  REQUIRE(restored.ask("ping") == "pong");
  const std::vector<pid_t> pagers = pagers_of(restored.pid());
  for (int area = 0; area < 16; ++area) {
    const std::string number = std::to_string(area);
    REQUIRE(restored.ask("approach " + number) == "ok");
    // The pager finds both at once: a fault, and a message that memory behind it is discarded.
    for (const pid_t pager : pagers) ::kill(pager, SIGSTOP);
    restored.conversation().tell("discard " + number);
    pid_t discards = 0;
    await(
        [&] {
          return has_unread_fault(pagers[0]) && (discards = thread_in_event(restored.pid())) != 0;
        },
        "nothing to be read");
    let_go_before(discards, pagers);
    for (const pid_t pager : pagers) ::kill(pager, SIGCONT);
    CHECK(restored.conversation().hear() == "ok");
  }
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("threads that touch memory at once are served at once") {
  const auto encoding = GENERATE(icecore::Encoding::raw, icecore::Encoding::zstd);
  Fixture fixture{"large_memory", {"64"}, encoding};
  Restored restored{fixture.image(), lazily(Fill::never)};
  CHECK(restored.ask("storm 32 20") != "");
  CHECK(restored.process().pager_statistics().faults > 32);
  CHECK(restored.ask("check?") == "ok");
  CHECK(restored.process().pager_statistics().lost_bytes == 0);
}

TEST_CASE("guards that are made while memory is loaded hold, and what lay under them is gone") {
  const auto encoding = GENERATE(icecore::Encoding::raw, icecore::Encoding::zstd);
  const auto fill = GENERATE(Fill::never, Fill::idle);
  INFO("encoding " << static_cast<int>(encoding) << ", fill " << static_cast<int>(fill));
  TemporaryFolder folder;
  Fixture fixture{"guard_regions", {folder.path()}, encoding};
  std::optional<Restored> made;
  std::vector<pid_t> pagers;
  do {  // until it stands still before it has begun to fill
    for (const pid_t pager : pagers) ::kill(pager, SIGCONT);
    made.emplace(fixture.image(), lazily(fill));
    REQUIRE(made->ask("secret?") == fixture.secret);
    pagers = pagers_of(made->pid());
    for (const pid_t pager : pagers) ::kill(pager, SIGSTOP);
  } while (pagers.size() != 2 || made->process().pager_statistics().background_bytes != 0);
  Restored& restored = *made;
  REQUIRE(restored.ask("guard") == "ok");
  for (const pid_t pager : pagers) ::kill(pager, SIGCONT);
  // An image of it has neither the contents nor the wish to load them.
  const fs::path second = fixture.folder / "second";
  icecore::snapshot(restored.pid(), second, {.encoding = encoding, .fsync = false});
  CHECK(restored.ask("check?") == "ok");
  Restored copy{second, lazily(fill)};
  CHECK(copy.ask("check?") == "ok");
  // Only of those that the pager has seen; there is nothing by which it could know of the others.
  if (fill == Fill::never) return;
  for (Restored* each : {&restored, &copy}) {
    REQUIRE(each->process().wait_filled(kPatience));
    CHECK(each->ask("check?") == "ok");
    REQUIRE(each->ask("unguard") == "ok");
    CHECK(each->ask("check?") == "ok");
  }
}

TEST_CASE("a process that was loaded completely is like any other") {
  Fixture fixture{"large_memory", {"16"}};
  ProcView eager;
  {
    Restored restored{fixture.image(), {.loading = Loading::eager}};
    CHECK_FALSE(restored.process().report().lazy);
    eager = proc_view(restored.pid());
  }
  Restored restored{fixture.image(), lazily(Fill::idle)};
  CHECK(restored.process().report().lazy);
  const std::vector<pid_t> pagers = pagers_of(restored.pid());
  CHECK(restored.process().wait_filled(kPatience));
  await_end_of(pagers);
  const auto statistics = restored.process().pager_statistics();
  CHECK(statistics.complete);
  CHECK(statistics.missing_bytes == 0);
  CHECK(statistics.fault_bytes + statistics.background_bytes +
            restored.process().report().prefetched_bytes ==
        restored.process().report().missing_bytes);
  for (const std::string& difference : differences(eager, proc_view(restored.pid())))
    FAIL_CHECK(difference);
  fs::remove(fixture.image());
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("huge pages come back when everything is loaded") {
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  std::string huge;
  {
    Target target{"huge_page_advice"};
    huge = target.ask("huge?");
    icecore::snapshot(target.pid(), image, {.kill = true, .fsync = false});
    target.process().await_end();
  }
  if (huge.find(" 0 kB") != std::string::npos) return skip("no huge pages here: " + huge);
  Restored restored{image, lazily(Fill::now)};
  const std::vector<pid_t> pagers = pagers_of(restored.pid());
  REQUIRE(restored.process().wait_filled(kPatience));
  await_end_of(pagers);
  CHECK(restored.ask("huge?") == huge);
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("a small process is filled before it runs") {
  Fixture fixture{"tiny"};
  Restored restored{fixture.image()};
  CHECK_FALSE(restored.process().report().lazy);
  CHECK(restored.process().wait_filled(std::chrono::milliseconds{0}));
  CHECK(restored.ask("secret?") == fixture.secret);
}

TEST_CASE("an image may be deleted and replaced while it is being loaded") {
  Fixture fixture{"large_memory", {"16"}};
  Restored restored{fixture.image(), lazily(Fill::never)};
  fs::remove(fixture.image());
  std::ofstream{fixture.image()} << "something else";
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("many copies of one image are loaded at once") {
  Fixture fixture{"large_memory", {"16"}};
  std::vector<std::unique_ptr<Restored>> copies;
  for (int copy = 0; copy < 10; ++copy)
    copies.push_back(std::make_unique<Restored>(fixture.image(), lazily(Fill::never)));
  for (const auto& copy : copies) CHECK(copy->ask("sample?") == "ok");
  for (const auto& copy : copies) CHECK(copy->ask("check?") == "ok");
}

// ---- a snapshot of what is being loaded --------------------------------------------------------

TEST_CASE("a snapshot takes what is not loaded yet from the image and loads nothing") {
  const auto encoding = GENERATE(icecore::Encoding::raw, icecore::Encoding::zstd);
  Fixture fixture{"large_memory", {"64"}, encoding};
  const fs::path second = fixture.folder / "second";
  Restored restored{fixture.image(), lazily(Fill::idle)};
  const auto before = restored.process().pager_statistics();
  const auto report = icecore::snapshot(restored.pid(), second, {.encoding = encoding});
  const auto after = restored.process().pager_statistics();
  CHECK(after.fault_bytes - before.fault_bytes < std::uint64_t{1} << 20);
  CHECK(report.stored_pages * 4096 > std::uint64_t{64} << 20);
  CHECK(restored.process().wait_filled(kPatience));  // it goes on when the snapshot is done
  CHECK(restored.ask("check?") == "ok");

  Restored third{second, {.loading = Loading::eager}};
  CHECK(third.ask("check?") == "ok");
  CHECK(third.ask("secret?") == fixture.secret);
}

TEST_CASE("snapshots of memory that changes while it is loaded are never wrong") {
  const auto encoding = GENERATE(icecore::Encoding::raw, icecore::Encoding::zstd);
  const auto fill = GENERATE(Fill::never, Fill::now);
  Fixture fixture{"memory_model", {}, encoding};
  std::vector<fs::path> images{fixture.image()};
  for (int round = 1; round <= kRounds / 2; ++round) {
    Restored restored{images.back(), lazily(fill)};
    images.push_back(fixture.folder / ("image" + std::to_string(round)));
    REQUIRE(restored.ask("work 30") == "ok");
    // A worker that was killed has forgotten what it has loaded.
    const std::vector<pid_t> pagers = pagers_of(restored.pid());
    if (round % 3 == 0 && pagers.size() == 2) ::kill(pagers.back(), SIGKILL);
    icecore::snapshot(restored.pid(), images.back(), {.encoding = encoding, .fsync = false});
    REQUIRE(restored.ask("work 30") == "ok");
    REQUIRE(restored.ask("check?") == "ok");
    Restored copy{images.back(), {.loading = round % 2 == 0 ? Loading::eager : Loading::lazy}};
    REQUIRE(copy.ask("check?") == "ok");
    REQUIRE(copy.ask("secret?") == fixture.secret);
  }
}

// ---- the pager dies ----------------------------------------------------------------------------

TEST_CASE("a pager that is killed again and again is replaced and no byte is wrong") {
  Fixture fixture{"memory_model"};
  std::mt19937 random{Catch::rngSeed() + 1};
  int kills = 0;
  for (int round = 0; round < kRounds / 3; ++round) {  // about a hundred deaths each
    Restored restored{fixture.image(), lazily(Fill::never)};
    const auto served = [&] { return !restored.process().pager_statistics().complete; };
    // Until everything has been touched.
    while (served()) {
      restored.conversation().tell("work 100");
      std::vector<pid_t> pagers;
      await([&] { return (pagers = pagers_of(restored.pid())).size() == 2 || !served(); },
            "not two pagers");
      if (pagers.size() == 2) {
        const pid_t victim = pagers[random() % 2];
        ::kill(victim, SIGKILL);
        await_end_of(
            {victim});  // else the next round might take it for one of two, and kill the other
        ++kills;
      }
      REQUIRE(restored.conversation().hear() == "ok");
    }
    CHECK(restored.ask("check?") == "ok");
    CHECK(restored.process().pager_statistics().lost_bytes == 0);
  }
  CHECK(kills > kRounds);
}

/// 0: it has none.
pid_t child_of(pid_t parent) {
  const std::string pid = std::to_string(parent);
  std::ifstream children{"/proc/" + pid + "/task/" + pid + "/children"};
  pid_t child = 0;
  children >> child;
  return child;
}

/// The two processes of a pager.  Whichever ends, the other makes a new one, its child.
struct PagerPair {
  pid_t keeper, worker;

  explicit PagerPair(pid_t served) {
    std::vector<pid_t> pagers;
    await([&] { return (pagers = pagers_of(served)).size() == 2; }, "not two pagers");
    keeper = pagers[0], worker = pagers[1];
    if (child_of(keeper) != worker) std::swap(keeper, worker);
  }

  void kill(bool which) {
    const pid_t victim = which ? keeper : worker;
    if (which) keeper = worker;
    ::kill(victim, SIGKILL);
    await([&] { return (worker = child_of(keeper)) != 0 && worker != victim; }, "no new worker");
  }
};

TEST_CASE("one pager survives a thousand deaths") {
  constexpr int kDeaths = kRounds * 50;
  Fixture fixture{"large_memory", {"128"}};
  Restored restored{fixture.image(), lazily(Fill::never)};
  PagerPair pagers{restored.pid()};
  for (int death = 1; death <= kDeaths; ++death) {
    // It reads memory that was not there yet while one of them dies.
    restored.conversation().tell("touch " + std::to_string(death * 24) + " read");
    pagers.kill(death % 3 == 0);
    REQUIRE(restored.conversation().hear().find("wrong") == std::string::npos);
  }
  CHECK(restored.process().pager_statistics().restarts >= kDeaths);
  const fs::path descriptors = "/proc/" + std::to_string(pagers.keeper) + "/fd";
  CHECK(std::distance(fs::directory_iterator{descriptors}, {}) < 32);
  CHECK(restored.ask("check?") == "ok");
  CHECK(restored.process().pager_statistics().lost_bytes == 0);
}

TEST_CASE("while a pager gets no memory the process waits, and no byte is wrong") {
  const auto encoding = GENERATE(icecore::Encoding::raw, icecore::Encoding::zstd);
  Fixture fixture{"memory_model", {}, encoding};
  Restored restored{fixture.image(), lazily(Fill::never)};
  PagerPair pagers{restored.pid()};
  const auto limit = [&](::rlim_t bytes) {
    const ::rlimit memory{bytes, RLIM_INFINITY};
    REQUIRE(::prlimit(pagers.keeper, RLIMIT_AS, &memory, nullptr) == 0);  // workers inherit it
    await([&] { return (pagers.worker = child_of(pagers.keeper)) != 0; }, "no worker");
    ::prlimit(pagers.worker, RLIMIT_AS, &memory, nullptr);  // it may have ended
  };
  const auto restarts = [&] { return restored.process().pager_statistics().restarts; };
  limit(1);
  restored.conversation().tell("work 1000");
  await([&] { return restarts() >= 5; }, "it has enough memory");
  limit(RLIM_INFINITY);
  CHECK(restored.conversation().hear() == "ok");
  CHECK(restored.ask("check?") == "ok");
  CHECK(restored.ask("secret?") == fixture.secret);
  CHECK(restored.process().pager_statistics().lost_bytes == 0);
}

TEST_CASE("a pager without memory ends with the process that it serves") {
  Fixture fixture{"large_memory", {"16"}, icecore::Encoding::zstd};  // which has no children
  Restored restored{fixture.image(), lazily(Fill::never)};
  const PagerPair pagers{restored.pid()};
  const ::rlimit none{1, RLIM_INFINITY};
  for (const pid_t pager : {pagers.keeper, pagers.worker})
    REQUIRE(::prlimit(pager, RLIMIT_AS, &none, nullptr) == 0);
  restored.conversation().tell("touch 4000 read");
  await([&] { return restored.process().pager_statistics().restarts >= 5; }, "it has memory");
  restored.process().signal(SIGKILL);
  restored.await_end();
  await_end_of({pagers.keeper});
}

TEST_CASE("a process whose whole pager is killed is killed too") {
  Fixture fixture{"large_memory", {"16"}};
  RestoredByTool restored{fixture.image(), {"--fill", "never", "--no-record"}};
  REQUIRE(restored.running());
  const std::vector<pid_t> pagers = pagers_of(restored.pid());
  REQUIRE(pagers.size() == 2);
  for (const pid_t pager : pagers) ::kill(pager, SIGSTOP);  // so that neither replaces the other
  for (const pid_t pager : pagers) ::kill(pager, SIGKILL);
  CHECK(exit_status(restored.tool().wait()) == 128 + SIGKILL);
}

TEST_CASE("without a pager a restore is refused and an eager one works") {
  Fixture fixture{"large_memory", {"16"}};
  const Outcome outcome = run(
      {"env", "ICECORE_PAGER=/nowhere/icecore-pager", ICECORE_TOOL, "restore", fixture.image()});
  INFO(outcome.err);
  CHECK(outcome.status == 125);
  CHECK_THAT(outcome.err, Catch::Contains("/nowhere/icecore-pager"));
  Conversation conversation = make_conversation();
  Process tool = Process::start({"env", "ICECORE_PAGER=/nowhere/icecore-pager", ICECORE_TOOL,
                                 "restore", fixture.image(), "--eager"},
                                conversation.streams());
  conversation.begin();
  CHECK(conversation.ask("check?") == "ok");
}

TEST_CASE("where userfaultfd is not permitted a restore is refused and an eager one works") {
  if (::geteuid() != 0 || !in_path("setpriv")) return skip("needs root and setpriv");
  std::ifstream setting{"/proc/sys/vm/unprivileged_userfaultfd"};
  if (setting.get() != '0') return skip("vm.unprivileged_userfaultfd is set");
  const Arguments without = {"setpriv", "--bounding-set=-sys_ptrace", "--"};
  const auto command = [&](const Arguments& rest) {
    Arguments words = without;
    words.insert(words.end(), rest.begin(), rest.end());
    return words;
  };
  TemporaryFolder folder;
  const fs::path image = folder / "image";
  Target target = Target::of_command(command({target_path("large_memory"), "16"}));
  const Outcome taken = run(command({ICECORE_TOOL, "snapshot", std::to_string(target.pid()), "-o",
                                     image, "--kill", "--no-fsync"}));
  INFO(taken.err);
  REQUIRE(taken.status == 0);
  target.process().await_end();
  const Outcome outcome = run(command({ICECORE_TOOL, "restore", image}));
  CHECK(outcome.status == 125);
  CHECK_THAT(outcome.err, Catch::Contains("vm.unprivileged_userfaultfd") &&
                              Catch::Contains("/dev/userfaultfd") && Catch::Contains("--eager"));
  Conversation conversation = make_conversation();
  Process tool =
      Process::start(command({ICECORE_TOOL, "restore", image, "--eager"}), conversation.streams());
  conversation.begin();
  CHECK(conversation.ask("check?") == "ok");
}

TEST_CASE("a debugger may look at a process that is being loaded") {
  if (!in_path("gdb")) return skip("no gdb");
  Fixture fixture{"large_memory", {"16"}};
  Restored restored{fixture.image(), lazily(Fill::never)};
  const Outcome outcome = run({"gdb", "-batch", "-nx", "-p", std::to_string(restored.pid()), "-ex",
                               "thread apply all bt", "-ex", "detach"});
  CHECK_THAT(outcome.out, Catch::Contains("#0"));
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("a process that is stopped and continued while it is loaded goes on") {
  Fixture fixture{"memory_model"};
  Restored restored{fixture.image(), lazily(Fill::idle)};
  for (int round = 0; round < 10; ++round) {
    restored.conversation().tell("work 100");
    restored.process().signal(SIGSTOP);
    restored.process().signal(SIGCONT);
    REQUIRE(restored.conversation().hear() == "ok");
  }
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("a hundred children of a process that is being loaded are served") {
  Fixture fixture{"memory_model"};
  Restored restored{fixture.image(), lazily(Fill::never)};
  CHECK(restored.ask("children 100") == "ok");
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("a pager goes on when the icecore that restored is killed") {
  Fixture fixture{"large_memory", {"16"}};
  RestoredByTool restored{fixture.image(), {"--fill", "never", "--no-record"}};
  CHECK(restored.ask("sample?") == "ok");
  ::kill(restored.tool().pid(), SIGKILL);
  CHECK(restored.ask("check?") == "ok");
  CHECK(restored.ask("secret?") == fixture.secret);
}

TEST_CASE("a pager ends with the process that it serves") {
  Fixture fixture{"large_memory", {"16"}};
  Restored restored{fixture.image(), lazily(Fill::never)};
  const std::vector<pid_t> pagers = pagers_of(restored.pid());
  CHECK(pagers.size() == 2);
  restored.conversation().tell("exit 0");
  restored.await_end();
  await_end_of(pagers);
}

TEST_CASE("a pager ends with the last child of the process that it serves") {
  Fixture fixture{"memory_model"};
  Restored restored{fixture.image(), lazily(Fill::never)};
  CHECK(restored.ask("children 100") == "ok");
  CHECK(restored.ask("work 500") == "ok");
  const std::vector<pid_t> pagers = pagers_of(restored.pid());
  CHECK(pagers.size() == 2);
  restored.process().signal(SIGKILL);
  restored.await_end();
  await_end_of(pagers);
}

// ---- the image goes bad ------------------------------------------------------------------------

TEST_CASE("memory that cannot be read any more is SIGBUS and never something else") {
  const bool truncated = GENERATE(true, false);
  Fixture fixture{"large_memory", {"16"}};
  Restored restored{fixture.image(), lazily(Fill::never)};
  const auto size = fs::file_size(fixture.image());
  if (truncated) {
    fs::resize_file(fixture.image(), 4096);
  } else {
    std::fstream file{fixture.image(), std::ios::in | std::ios::out};
    file.seekp(4096);
    const std::string zeros(size - 8192, '\0');
    file.write(zeros.data(), static_cast<std::streamsize>(zeros.size()));
  }
  restored.conversation().tell("check?");
  CHECK_THROWS(restored.conversation().hear());
  const int status = restored.process().wait();
  CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS));
  CHECK(restored.process().pager_statistics().lost_bytes > 0);
  const auto message = restored.process().pager_message();
  REQUIRE(message);
  CHECK_THAT(*message, Catch::Contains("SIGBUS"));
}

TEST_CASE("memory on a disk that fails is SIGBUS and never something else") {
  if (::geteuid() != 0 || !in_path("mkfs.ext4")) return skip("needs root and mkfs.ext4");
  TemporaryFolder folder;
  const fs::path disk = folder / "disk", mounted = folder / "mounted";
  std::ofstream{disk};
  fs::resize_file(disk, std::uint64_t{96} << 20);
  fs::create_directory(mounted);
  REQUIRE(run({"mkfs.ext4", "-q", disk}).status == 0);
  if (run({"mount", "-o", "loop", disk, mounted}).status != 0) return skip("no loop devices");
  {
    Target target{"large_memory", {"16"}};
    icecore::snapshot(target.pid(), mounted / "image",
                      {.encoding = icecore::Encoding::raw, .kill = true});
    target.process().await_end();
    Restored restored{mounted / "image", lazily(Fill::never)};
    REQUIRE(restored.ask("sample?") == "ok");
    fs::resize_file(disk, 4096);
    for (const fs::path& file : {disk, mounted / "image"}) {
      const Descriptor cached{::open(file.c_str(), O_RDONLY | O_CLOEXEC)};
      ::posix_fadvise(cached.get(), 0, 0, POSIX_FADV_DONTNEED);
    }
    restored.conversation().tell("check?");
    CHECK_THROWS(restored.conversation().hear());
    const int status = restored.process().wait();
    CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS));
    CHECK(restored.process().pager_statistics().lost_bytes > 0);
  }
  CHECK(run({"umount", "-l", mounted}).status == 0);
}

// ---- the working set ---------------------------------------------------------------------------

TEST_CASE("what a process touches is kept and is there at once the next time") {
  const auto encoding = GENERATE(icecore::Encoding::raw, icecore::Encoding::zstd);
  Fixture fixture{"large_memory", {"16"}, encoding};
  {
    Restored restored{
        fixture.image(),
        {.loading = Loading::lazy, .fill = Fill::never, .record_for = std::chrono::seconds{1}}};
    CHECK(restored.process().report().recording);
    CHECK(restored.ask("sample?") == "ok");
    await([&] { return fs::exists(fixture.working_set()); }, "no working set");
  }
  CHECK(icecore::Image::open(fixture.image()).info().working_set_pages >= 16);
  CHECK(icecore::Image::open(fixture.image()).info().working_set_file_pages >= 16);
  CHECK_THAT(icecore({"inspect", fixture.image()}).out, Catch::Contains("working set  "));
  CHECK(fs::status(fixture.working_set()).permissions() ==
        (fs::perms::owner_read | fs::perms::owner_write));
  Restored restored{fixture.image(), {.loading = Loading::lazy, .fill = Fill::never}};
  CHECK_FALSE(restored.process().report().recording);
  CHECK(restored.process().report().prefetched_bytes > 0);
  const auto before = restored.process().pager_statistics().faults;
  CHECK(restored.ask("sample?") == "ok");
  CHECK(restored.process().pager_statistics().faults <= before + 4);
  CHECK(restored.ask("check?") == "ok");
}

TEST_CASE("what a process has touched is kept when it is quiet, and what follows at its end") {
  Fixture fixture{"large_memory", {"16"}};
  const auto pages = [&] {
    return fs::exists(fixture.working_set())
               ? icecore::Image::open(fixture.image()).info().working_set_pages
               : 0;
  };
  Restored restored{
      fixture.image(),
      {.loading = Loading::lazy, .fill = Fill::never, .record_for = std::chrono::hours{1}}};
  REQUIRE(restored.ask("sample?") == "ok");
  await([&] { return pages() >= 16; }, "no working set");
  CHECK(pages() < 4000);
  CHECK(restored.ask("check?") == "ok");
  restored.conversation().tell("exit 0");
  CHECK(restored.process().wait() == 0);
  await([&] { return pages() > 4000; }, "what followed is not kept");
}

TEST_CASE("what a process touches after its last output is not kept") {
  const bool connected = GENERATE(false, true);  // then output may leave unseen
  Arguments arguments{"16"};
  if (connected) arguments.push_back("connected");
  Fixture fixture{"large_memory", arguments};
  Restored restored{fixture.image(), {.loading = Loading::lazy, .fill = Fill::never}};
  REQUIRE(restored.ask("sample?") == "ok");
  restored.conversation().tell("end");
  CHECK(restored.process().wait() == 0);
  await([&] { return fs::exists(fixture.working_set()); }, "no working set");
  const auto kept = icecore::Image::open(fixture.image()).info().working_set_pages;
  CHECK(kept >= 16);
  CHECK((kept > 4000) == connected);
  Restored again{fixture.image(), {.loading = Loading::lazy, .fill = Fill::never}};
  CHECK(again.ask("check?") == "ok");
}

TEST_CASE("a working set that is damaged or of another image is ignored with a warning") {
  Fixture fixture{"large_memory", {"16"}};
  Fixture other{"large_memory", {"16"}};
  for (Fixture* recorded : {&fixture, &other}) {
    Restored restored{recorded->image(), {.loading = Loading::lazy, .fill = Fill::never}};
    CHECK(restored.ask("sample?") == "ok");
    restored.conversation().tell("exit 0");
    restored.await_end();
    await([&] { return fs::exists(recorded->working_set()); }, "no working set");
  }
  const auto expect_warning = [&](const std::string& words) {
    Restored restored{fixture.image(), lazily(Fill::never)};
    const auto& warnings = restored.process().report().warnings;
    REQUIRE(warnings.size() == 1);
    CHECK_THAT(warnings[0], Catch::Contains(words));
    CHECK(restored.ask("check?") == "ok");
  };
  const auto size = fs::file_size(fixture.working_set());
  const auto flip = [&](std::uint64_t place) {
    std::fstream file{fixture.working_set(), std::ios::in | std::ios::out};
    file.seekg(static_cast<std::streamoff>(place));
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(static_cast<std::streamoff>(place));
    file.put(byte);
  };
  flip(size - 100);
  expect_warning("differs from its digest");
  flip(70);
  expect_warning("differs from its digest");
  fs::resize_file(fixture.working_set(), size / 2);
  expect_warning("cut off");
  fs::copy_file(other.working_set(), fixture.working_set(), fs::copy_options::overwrite_existing);
  expect_warning("another image");
}

}  // namespace test::pager_test
