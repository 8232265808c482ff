// SPDX-License-Identifier: Apache-2.0
//
// Every target goes through every mode.  A new target is one line in subjects.hpp.
#include "roundtrip/subjects.hpp"

#include <catch2/catch.hpp>
#include <icecore/snapshot.hpp>

#include <functional>
#include <memory>
#include <optional>

#include "support/proc_view.hpp"
#include "support/restored.hpp"
#include "support/run.hpp"
#include "support/skip.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::subjects_test {

namespace fs = std::filesystem;

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += "\n  " + line;
  return text;
}

/// One trip of one subject, in a folder of its own.
class Trip {
 public:
  explicit Trip(const Subject& subject)
      : subject_(subject), target_(subject.name, with_folder(subject.arguments, folder_.path())) {
    secret_ = target_.ask("secret?");
    CHECK(target_.ask("check?") == "ok");
  }

  Target& target() { return target_; }
  fs::path image() const { return folder_ / "image"; }

  /// Holds what answers now against what answered at the beginning.
  template <class Answering>
  void expect_same(Answering& now) const {
    CHECK(now.ask("secret?") == secret_);
    CHECK(now.ask("check?") == "ok");
  }

  /// A thread that has just been thawed needs a moment to be back where it was: inside
  /// rt_sigtimedwait, for one, the kernel shows another signal mask.
  void expect_same_view(const ProcView& before, pid_t after) const {
    const Deadline deadline{std::chrono::seconds{3}};
    std::vector<std::string> found;
    do {
      found = differences(before, proc_view(after), subject_.changing);
    } while (!found.empty() && !deadline.passed());
    INFO("/proc/PID tells of" << joined(found));
    CHECK(found.empty());
  }

  /// The view of a process that was never let run between this and its death.
  ProcView snapshot_and_kill(pid_t pid, icecore::Encoding encoding) const {
    const ProcView before = proc_view(pid, Registrations::left_out);
    icecore::snapshot(pid, image(), {.encoding = encoding, .kill = true, .fsync = false});
    return before;
  }

 private:
  const Subject& subject_;
  TemporaryFolder folder_;
  Target target_;
  std::string secret_;
};

void runs_on(const Subject& subject) {
  Trip trip{subject};
  const pid_t pid = trip.target().pid();
  for (int round = 0; round < 2; ++round) {
    const ProcView before = proc_view(pid);
    icecore::snapshot(pid, trip.image(), {.fsync = false});
    trip.expect_same_view(before, pid);
    trip.expect_same(trip.target());
  }
}

void comes_back(const Subject& subject, icecore::Encoding encoding) {
  Trip trip{subject};
  const ProcView before = trip.snapshot_and_kill(trip.target().pid(), encoding);
  trip.target().process().await_end();
  Restored restored{trip.image(), {.loading = icecore::Loading::eager}};
  trip.expect_same_view(before, restored.pid());
  trip.expect_same(restored);
}

/// First with most pages missing all the time, and snapshotted like that; then until all are there.
void comes_back_lazily(const Subject& subject, icecore::Encoding encoding) {
  Trip trip{subject};
  trip.snapshot_and_kill(trip.target().pid(), encoding);
  trip.target().process().await_end();
  ProcView before;
  {
    Restored restored{trip.image(),
                      {.loading = icecore::Loading::lazy, .fill = icecore::Fill::never}};
    trip.expect_same(restored);
    icecore::snapshot(restored.pid(), trip.image(), {.fsync = false});
    trip.expect_same(restored);
    before = trip.snapshot_and_kill(restored.pid(), encoding);
    restored.await_end();
  }
  Restored restored{trip.image(),
                    {.loading = icecore::Loading::lazy,
                     .fill = icecore::Fill::now,
                     .record = icecore::Record::no}};
  CHECK(restored.process().wait_filled(kPatience));
  if (restored.process().report().lazy) CHECK(restored.process().pager_statistics().complete);
  trip.expect_same_view(before, restored.pid());
  trip.expect_same(restored);
}

void comes_back_three_times(const Subject& subject) {
  Trip trip{subject};
  ProcView before = trip.snapshot_and_kill(trip.target().pid(), icecore::Encoding::raw);
  trip.target().process().await_end();
  for (int round = 1; round <= 3; ++round) {
    INFO("round " << round);
    Restored restored{trip.image(), {.loading = icecore::Loading::eager}};
    trip.expect_same_view(before, restored.pid());
    trip.expect_same(restored);
    if (round < 3) {
      before = trip.snapshot_and_kill(restored.pid(), icecore::Encoding::raw);
      restored.await_end();
    }
  }
}

void comes_back_by_the_tool(const Subject& subject) {
  Trip trip{subject};
  const Outcome outcome = icecore({"snapshot", std::to_string(trip.target().pid()), "--kill", "-o",
                                   trip.image(), "--no-fsync"});
  INFO(outcome.err);
  REQUIRE(outcome.status == 0);
  trip.target().process().await_end();
  RestoredByTool restored{trip.image()};
  trip.expect_same(restored);
  restored.conversation().tell("exit 7");
  CHECK(exit_status(restored.tool().wait()) == 7);
}

void comes_back_beside_the_original(const Subject& subject) {
  Trip trip{subject};
  icecore::snapshot(trip.target().pid(), trip.image(), {.fsync = false});
  Restored restored{trip.image()};
  CHECK(restored.process().report().in_namespace);
  trip.expect_same(restored);
  trip.expect_same(trip.target());
}

// ---- registration ------------------------------------------------------------------------------

struct Mode {
  std::string name;
  std::function<void(const Subject&)> run;
  bool needs_two = false;  ///< the original runs on beside its copy
};

const Mode kModes[] = {
    {"runs on", runs_on},
    {"raw", [](const Subject& subject) { comes_back(subject, icecore::Encoding::raw); }},
    {"zstd", [](const Subject& subject) { comes_back(subject, icecore::Encoding::zstd); }},
    {"lazy raw", [](const Subject& s) { comes_back_lazily(s, icecore::Encoding::raw); }},
    {"lazy zstd", [](const Subject& s) { comes_back_lazily(s, icecore::Encoding::zstd); }},
    {"three rounds", comes_back_three_times},
    {"tool", comes_back_by_the_tool},
    {"beside the original", comes_back_beside_the_original, true},
};

class RoundTrip : public Catch::ITestInvoker {
 public:
  RoundTrip(const Subject& subject, const Mode& mode) : subject_(subject), mode_(mode) {}

  void invoke() const override {
    try {
      mode_.run(subject_);
    } catch (const NotHere& reason) {
      skip(reason.what());
    }
  }

 private:
  const Subject& subject_;
  const Mode& mode_;
};

/// One test case for each subject and mode: "roundtrip/pipes/zstd".
const bool registered = [] {
  for (const Subject& subject : subjects()) {
    for (const Mode& mode : kModes) {
      if (subject.shares_outside && mode.needs_two) continue;
      const std::string name = "roundtrip/" + subject.name + subject.variant + "/" + mode.name;
      Catch::getMutableRegistryHub().registerTest(
          Catch::makeTestCase(new RoundTrip{subject, mode}, "", {name, "[roundtrip]"},
                              Catch::SourceLineInfo{__FILE__, __LINE__}));
    }
  }
  return true;
}();

}  // namespace test::subjects_test
