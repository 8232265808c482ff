// SPDX-License-Identifier: Apache-2.0
//
// Targets in random order, each snapshotted at random moments in the middle of its work, again and
// again, from copy to copy; half of the snapshots let it run on, the others kill it and bring it
// back.
//
//     ICECORE_STRESS_SNAPSHOTS=3000 [ICECORE_STRESS_SEED=N] icecore_system_tests "stress"
#include <catch2/catch.hpp>
#include <icecore/error.hpp>
#include <icecore/snapshot.hpp>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <random>
#include <thread>

#include "roundtrip/subjects.hpp"
#include "support/restored.hpp"
#include "support/skip.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::stress_test {

namespace fs = std::filesystem;

constexpr int kRounds = 10;
constexpr int kShortForm = 60;
constexpr std::chrono::microseconds kLongestDelay{4000};

unsigned long number_from(const char* variable, unsigned long otherwise) {
  const char* const text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoul(text, nullptr, 10);
}

struct Counts {
  unsigned long snapshots = 0;
  unsigned long restores = 0;
  unsigned long refused = 0;  // in the middle of something, such as a connection being made
};

/// One target and its copies.
class Life {
 public:
  Life(const Subject& subject, std::mt19937_64& random)
      : random_(random), target_(subject.name, with_folder(subject.arguments, folder_.path())) {
    secret_ = target_.ask("secret?");
    REQUIRE(target_.ask("check?") == "ok");
  }

  /// A snapshot while the process looks at itself, and what it then finds.
  void round(Counts& counts) {
    conversation().tell("check?");
    std::this_thread::sleep_for(
        std::chrono::microseconds{random_() % static_cast<unsigned>(kLongestDelay.count())});
    const bool kill = random_() % 2 == 0;
    const auto encoding = random_() % 4 == 0 ? icecore::Encoding::zstd : icecore::Encoding::raw;
    try {
      icecore::snapshot(pid(), image(), {.encoding = encoding, .kill = kill, .fsync = false});
      ++counts.snapshots;
    } catch (const icecore::Error& error) {
      INFO(error.what());
      REQUIRE(error.code() == icecore::Errc::unsupported);
      ++counts.refused;
      CHECK(conversation().hear() == "ok");
      return;
    }
    if (kill)
      come_back(counts);
    else
      CHECK(conversation().hear() == "ok");
    CHECK(conversation().ask("secret?") == secret_);
  }

 private:
  void come_back(Counts& counts) {
    const std::optional<std::string> answer = conversation().heard();
    const bool asked = conversation().all_read();
    if (restored_)
      restored_->await_end();
    else
      target_.process().await_end();
    icecore::RestoreOptions options;
    options.loading = random_() % 2 == 0 ? icecore::Loading::lazy : icecore::Loading::eager;
    options.fill = random_() % 2 == 0 ? icecore::Fill::never : icecore::Fill::idle;
    restored_.reset();
    restored_ = std::make_unique<Restored>(image(), options);
    ++counts.restores;
    if (!asked) conversation().tell("check?");
    CHECK((answer ? *answer : conversation().hear()) == "ok");
  }

  fs::path image() const { return folder_ / "image"; }
  pid_t pid() const { return restored_ ? restored_->pid() : target_.pid(); }
  Conversation& conversation() {
    return restored_ ? restored_->conversation() : target_.conversation();
  }

  std::mt19937_64& random_;
  TemporaryFolder folder_;
  Target target_;
  std::unique_ptr<Restored> restored_;
  std::string secret_;
};

TEST_CASE("stress") {
  const unsigned long wanted = number_from("ICECORE_STRESS_SNAPSHOTS", kShortForm);
  const unsigned long seed = number_from("ICECORE_STRESS_SEED", std::random_device{}());
  INFO("ICECORE_STRESS_SEED=" << seed);
  std::mt19937_64 random{seed};
  Counts counts;
  std::vector<const Subject*> order;
  while (counts.snapshots < wanted) {
    if (order.empty()) {
      for (const Subject& subject : subjects()) order.push_back(&subject);
      std::ranges::shuffle(order, random);
    }
    const Subject& subject = *order.back();
    order.pop_back();
    INFO(subject.name << subject.variant);
    try {
      Life life{subject, random};
      for (int round = 0; round < kRounds && counts.snapshots < wanted; ++round) {
        INFO("round " << round);
        life.round(counts);
      }
    } catch (const NotHere&) {
      continue;  // its own test says so
    }
  }
  fmt::print("stress: {} snapshots, {} restores, {} refused for a moment\n", counts.snapshots,
             counts.restores, counts.refused);
}

}  // namespace test::stress_test
