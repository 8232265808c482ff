// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

namespace test {

/// What /proc/PID tells of a process, less what is not its state: inode numbers of pipes and of
/// anonymous memory, times and counters.  Each fact is text under a name such as "thread 12 name".
using ProcView = std::map<std::string, std::string>;

/// What of it may be left out.
enum class Registrations {
  seen,
  left_out,  ///< with a userfaultfd: the process is being loaded
};

/// Of a process that stands still for as long as this takes, or at least changes no such fact.
ProcView proc_view(pid_t pid, Registrations registrations = Registrations::seen);

/// One line for each fact that is not the same; facts whose names begin with one of `except` may
/// differ.
std::vector<std::string> differences(const ProcView& before, const ProcView& after,
                                     const std::vector<std::string>& except = {});

}  // namespace test
