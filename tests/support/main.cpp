// SPDX-License-Identifier: Apache-2.0
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "skip.hpp"

namespace {

/// Says at the end how much could not be tested here.
struct SkipCounter : Catch::TestEventListenerBase {
  using TestEventListenerBase::TestEventListenerBase;
  void testRunEnded(const Catch::TestRunStats&) override {
    if (test::skipped > 0) std::cout << test::skipped << " skips in this run" << std::endl;
  }
};

CATCH_REGISTER_LISTENER(SkipCounter)

}  // namespace
