// SPDX-License-Identifier: Apache-2.0
//
// State: a program that uses libicecore_guest.  It counts the calls of its callbacks; "snapshot"
// asks for one.
#include <icecore/guest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <atomic>

#include "target.hpp"

using namespace target;

static std::atomic<int> before_calls, restore_calls, gone_on_calls;
static std::atomic<bool> refuse, hang, hang_after, hang_gone, forks, leaves_child, throws;
static std::string order;  // of the callbacks before the last snapshot

static std::string identity() {
  unsigned char id[16];
  icecore_guest_id(id);
  std::string text;
  for (const unsigned char byte : id)
    text += "0123456789abcdef"[byte >> 4], text += "0123456789abcdef"[byte & 15];
  return text;
}

static std::string in_child() {
  const pid_t child = static_cast<pid_t>(must(::fork(), "fork"));
  if (child == 0) {
    const bool fresh =
        icecore_guest_generation() == 0 && icecore_guest_after_restore([](void*) {}, nullptr) == 0;
    std::_Exit(fresh ? 0 : 1);
  }
  int status = 0;
  must(::waitpid(child, &status, 0), "waitpid");
  return status == 0 ? "ok" : "wrong";
}

/// Ends with the thread that made it, at the latest.
static void leave_child() {
  if (must(::fork(), "fork") != 0) return;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (;;) ::pause();
}

int main() {
  icecore_guest_before_snapshot(
      [](void*) {
        ++before_calls;
        order += "first";
        if (forks && in_child() != "ok") return 1;
        if (leaves_child) leave_child();
        if (throws) throw std::runtime_error{"in a callback"};
        while (hang) std::this_thread::yield();
        return refuse ? 1 : 0;
      },
      nullptr);
  icecore_guest_before_snapshot(
      [](void*) {
        order = "second ";
        return 0;
      },
      nullptr);
  icecore_guest_after_restore(
      [](void*) {
        while (hang_after) std::this_thread::yield();
        ++restore_calls;
      },
      nullptr);
  icecore_guest_after_snapshot(
      [](void*) {
        while (hang_gone) std::this_thread::yield();
        ++gone_on_calls;
      },
      nullptr);
  const auto number = [](const std::atomic<int>& count) { return std::to_string(count.load()); };
  return serve(
      [] {},
      {{"before?", [&](auto&) { return number(before_calls); }},
       {"restored?", [&](auto&) { return number(restore_calls); }},
       {"gone", [&](auto&) { return number(gone_on_calls); }},
       {"order?", [](auto&) { return order; }},
       {"generation?", [](auto&) { return std::to_string(icecore_guest_generation()); }},
       {"id?", [](auto&) { return identity(); }},
       {"refuse", [](auto&) { return refuse = true, "done"; }},
       {"accept", [](auto&) { return refuse = hang = hang_after = hang_gone = false, "done"; }},
       {"hang", [](auto&) { return hang = true, "done"; }},
       {"hang_after", [](auto&) { return hang_after = true, "done"; }},
       {"hang_gone", [](auto&) { return hang_gone = true, "done"; }},
       {"deadline",
        [](const std::string& ms) {
          icecore_guest_set_deadline(static_cast<unsigned>(std::stoul(ms)));
          return "done";
        }},
       {"fork_in_callback", [](auto&) { return forks = true, "done"; }},
       {"leave_child", [](auto&) { return leaves_child = true, "done"; }},
       {"throw", [](auto&) { return throws = true, "done"; }},
       {"fork", [](auto&) { return in_child(); }},
       {"snapshot", [](auto&) { return std::to_string(icecore_guest_snapshot(20'000)); }},
       {"variable?",
        [](const std::string& name) {
          const char* const value = icecore_guest_variable(name.c_str());
          return std::string{value != nullptr ? value : "none"};
        }},
       {"arguments?", [](auto&) {
          std::string all;
          for (std::size_t i = 0; i < icecore_guest_argument_count(); ++i)
            all += std::string{icecore_guest_argument(i)} + "|";
          return all;
        }}});
}
