// SPDX-License-Identifier: Apache-2.0
#pragma once

// The targets whose state comes back, each as the round trips need to know it.

#include <filesystem>
#include <string>
#include <vector>

#include "support/process.hpp"

namespace test {

/// A target whose state is expected to come back, with what a round trip needs to know of it.
struct Subject {
  std::string name;          ///< program in tests/targets
  Arguments arguments = {};  ///< "FOLDER" stands for the test's folder
  /// Facts of proc_view() that change while the target does its work; why is said beside each.
  std::vector<std::string> changing = {};
  bool shares_outside = false;  ///< two copies at once would disturb each other
  std::string variant = {};     ///< in the name of the test, where a program is used twice
};

inline const std::vector<Subject>& subjects() {
  static const std::vector<Subject> all = {
      {.name = "tiny"},
      // its heap and stacks are in use by threads that run, and new mappings come and go
      {.name = "thread_creator", .changing = {"thread", "mapping"}},
      {.name = "counting_threads", .arguments = {"4"}},
      {.name = "many_threads", .arguments = {"200"}},
      {.name = "registers"},
      {.name = "vector_registers"},
      // what its registers hold is in flux
      {.name = "vector_computation", .changing = {"thread"}},
      {.name = "amx_tiles"},
      {.name = "protection_keys"},
      {.name = "tls_and_gs"},
      {.name = "tls_slots"},
      {.name = "thread_names"},
      {.name = "signal_masks"},
      {.name = "signal_actions"},
      {.name = "pending_signals"},
      {.name = "alternate_stack"},
      {.name = "rseq_and_robust"},
      // they are in one place of a sequence or another
      {.name = "restartable_sequences", .changing = {"thread"}},
      {.name = "blocked_in_futex"},
      {.name = "blocked_in_futex_until"},
      {.name = "blocked_in_futex_waitv"},
      {.name = "blocked_in_futex_lock_pi"},
      {.name = "blocked_in_nanosleep"},
      {.name = "blocked_in_nanosleep_with_rest"},
      {.name = "blocked_in_clock_nanosleep"},
      {.name = "blocked_in_poll"},
      {.name = "blocked_in_ppoll"},
      {.name = "blocked_in_select"},
      {.name = "blocked_in_epoll_wait"},
      {.name = "blocked_in_epoll_pwait2"},
      {.name = "blocked_in_recv"},
      {.name = "blocked_in_read_pipe"},
      {.name = "blocked_in_pause"},
      {.name = "blocked_in_sigsuspend"},
      {.name = "blocked_in_sigtimedwait"},
      {.name = "private_anonymous"},
      {.name = "shared_anonymous"},
      {.name = "kept_from_forks"},
      {.name = "private_file", .arguments = {"FOLDER"}},
      {.name = "shared_file", .arguments = {"FOLDER"}, .shares_outside = true},
      {.name = "heap"},
      {.name = "growing_stack"},
      {.name = "vdso"},
      {.name = "no_vdso"},
      {.name = "no_vdso", .arguments = {"all"}, .variant = " all"},
      {.name = "huge_page_advice"},
      {.name = "memory_policies"},
      {.name = "guard_regions", .arguments = {"FOLDER"}},
      {.name = "sealed_memory"},
      {.name = "droppable_memory"},
      {.name = "huge_tlb_pages"},
      {.name = "locked_new_memory"},
      {.name = "locked_new_memory", .arguments = {"ONFAULT"}, .variant = " late"},
      {.name = "unreadable_memory"},
      {.name = "command_line", .arguments = {"an argument", "", "two words"}},
      {.name = "files", .arguments = {"FOLDER"}},
      {.name = "memfds"},
      // one of them is opened by its other name, and the device by its usual one
      {.name = "deleted_files", .arguments = {"FOLDER"}, .changing = {"fd 9", "fd 12"}},
      {.name = "replaced_program", .arguments = {"file", "FOLDER"}},
      {.name = "replaced_program", .arguments = {"memfd"}, .variant = " memfd"},
      {.name = "pipes"},
      // what waits in a call may end, as may the thread whose rest has been written
      {.name = "partial_writes", .changing = {"thread"}},
      {.name = "odd_files", .arguments = {"FOLDER"}, .shares_outside = true},
      {.name = "locks", .arguments = {"FOLDER"}, .shares_outside = true},
      {.name = "signal_driven"},
      {.name = "eventfds"},
      {.name = "epolls"},
      {.name = "timerfds"},
      {.name = "timerfds", .arguments = {"ahead"}, .variant = " ahead"},
      {.name = "watched_files", .arguments = {"FOLDER"}, .shares_outside = true},
      {.name = "tcp_connections", .shares_outside = true},
      {.name = "segments", .shares_outside = true},
      // another test may have taken their numbers meanwhile
      {.name = "pseudo_terminals",
       .changing = {"fd 3", "fd 4", "fd 5", "fd 6", "fd 7", "fd 8", "fd 9", "fd 10", "fd 11",
                    "fd 12", "fd 13", "fd 14", "fd 15", "fd 16"}},
      {.name = "own_terminal", .changing = {"fd 3", "fd 4"}},
      {.name = "terminal_by_name", .changing = {"fd 3"}},
      {.name = "terminal_by_name",
       .arguments = {"NAMED"},
       .changing = {"fd 3"},
       .variant = " named"},
      {.name = "hung_up_terminals", .changing = {"fd 3", "fd 4", "fd 5", "fd 6"}},
      {.name = "signalfds"},
      {.name = "ended_processes"},
      // two of it would have the same names
      {.name = "unix_sockets", .shares_outside = true},
      {.name = "passed_descriptors", .arguments = {"FOLDER"}, .shares_outside = true},
      {.name = "waiting_connections", .shares_outside = true},
      {.name = "socket_options", .shares_outside = true},
      {.name = "ended_connections"},
      {.name = "deleted_places", .arguments = {"FOLDER"}, .shares_outside = true},
      {.name = "listening_sockets", .arguments = {"FOLDER"}, .shares_outside = true},
      {.name = "multicast_groups", .shares_outside = true},
      {.name = "shared_ports", .shares_outside = true},
      {.name = "relative_sockets", .arguments = {"FOLDER"}, .shares_outside = true},
      {.name = "moved_sockets", .arguments = {"FOLDER"}, .shares_outside = true},
      {.name = "umask_and_cwd", .arguments = {"FOLDER"}},
      {.name = "limits"},
      {.name = "process_settings"},
      {.name = "session_leader"},
      {.name = "interval_timers"},
      {.name = "posix_timers"},
      {.name = "cpu_clocks"},
      // the signals come and go
      {.name = "ringing_timers", .changing = {"status ShdPnd", "thread"}},
      {.name = "expired_timers"},
      {.name = "bare_signals"},
      {.name = "handler_on_alternate_stack"},
      {.name = "credentials"},
      {.name = "seccomp_filters", .arguments = {"common"}, .variant = " common"},
      {.name = "seccomp_filters", .arguments = {"different"}, .variant = " different"},
      {.name = "seccomp_filters", .arguments = {"privileged"}, .variant = " privileged"},
      {.name = "seccomp_strict"},
      {.name = "scheduling"},
      {.name = "deadline_scheduling", .shares_outside = true},
      {.name = "thread_settings"},
      {.name = "memory_settings"},
      {.name = "merged_memory"},
      {.name = "clocks"},
      {.name = "clocks", .arguments = {"ahead"}, .variant = " ahead"},
      {.name = "large_memory", .arguments = {"64"}},
      {.name = "many_mappings", .arguments = {"1000"}},
      // it moves and replaces its mappings
      {.name = "memory_model", .changing = {"mapping"}},
  };
  return all;
}

/// With the path in the place of "FOLDER".
inline Arguments with_folder(Arguments arguments, const std::filesystem::path& folder) {
  for (std::string& argument : arguments)
    if (argument == "FOLDER") argument = folder;
  return arguments;
}

}  // namespace test
