// SPDX-License-Identifier: Apache-2.0
//
// State: a thread under strict seccomp: it may read and write, and nothing else.
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include "target.hpp"

using namespace target;

static int question[2], reply[2];

static void echo() {
  if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) std::_Exit(97);
  for (char byte; ::syscall(SYS_read, question[0], &byte, 1) == 1;)
    ::syscall(SYS_write, reply[1], &++byte, 1);
}

int main() {
  must(::pipe2(question, O_CLOEXEC), "pipe2");
  must(::pipe2(reply, O_CLOEXEC), "pipe2");
  std::thread{echo}.detach();
  const auto check = [] {
    char byte = 'a';
    must(::write(question[1], &byte, 1), "write");
    must(::read(reply[0], &byte, 1), "read");
    require(byte == 'b', "the thread answers something else");
  };
  check();
  return serve(check);
}
