// SPDX-License-Identifier: Apache-2.0
//
// State: a thread in msgrcv on the queue of the argument, which no process owns.
#include <sys/ipc.h>
#include <sys/msg.h>

#include "blocked.hpp"

using namespace target;

struct Message {
  long type;
  char text[8];
};

static int queue = 0;

static long receive(long) {
  Message message{};
  return raw(SYS_msgrcv, queue, &message, sizeof message.text, 1, 0);
}

static void send() {
  const Message message = {1, "message"};
  must(::msgsnd(queue, &message, sizeof message.text, 0), "msgsnd");
}

int main(int, char** arguments) {
  queue = std::atoi(arguments[1]);
  return serve_wait({.number = SYS_msgrcv, .call = receive, .release = send, .released = 8});
}
