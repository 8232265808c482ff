// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "icecore/error.hpp"

/// A promise inside icecore.  On in release builds: a broken one must stop a snapshot, not spoil
/// it.
#define ICECORE_CHECK(condition)                                                              \
  do {                                                                                        \
    if (!(condition))                                                                         \
      throw ::icecore::Error{::icecore::Errc::internal,                                       \
                             "broken promise inside icecore: " #condition " (" __FILE__ ")"}; \
  } while (false)
