// SPDX-License-Identifier: Apache-2.0
//
// State: a process that leads a session and a process group of its own.
#include "target.hpp"

using namespace target;

int main() {
  must(::setsid(), "setsid");
  return serve([] {
    require(::getsid(0) == ::getpid(), "another session");
    require(::getpgrp() == ::getpid(), "another process group");
  });
}
