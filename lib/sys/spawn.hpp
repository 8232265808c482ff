// SPDX-License-Identifier: Apache-2.0
#pragma once

// Starts a program from a descriptor, with a wanted pid, stopped before its first instruction.
//
// Kernel facts relied on here:
//  * A child that shares our memory (CLONE_VM) until its exec costs no copy of page tables, however
//    large the runtime that links us is.  It runs on a stack of its own and makes raw system calls
//    only.  Unlike vfork it leaves us running, so we can seize it before it execs.
//  * PR_SET_PDEATHSIG kills the child when the *thread* that made it ends.
//  * With PTRACE_O_TRACEEXEC an exec ends in a stop before the first instruction.
//  * mount(2) of proc shows the pid namespace of the process that mounts.

#include <sys/types.h>

#include <array>
#include <span>
#include <string>

#include "sys/fd.hpp"

namespace icecore::sys {

struct SpawnRequest {
  const Fd& program;        ///< an executable file
  const Fd& first;          ///< becomes descriptor 3
  const Fd& second;         ///< becomes descriptor 4; all others are closed
  pid_t pid = 0;            ///< wanted pid in the namespace of the child, 0: any
  bool namespaces = false;  ///< in a new pid namespace and a new mount namespace of its own
};

struct Spawned {
  pid_t pid;  ///< as seen by us
  Fd pidfd;
};

/// The program is traced by the calling thread (killed when that ends) and stopped in its exec.
/// Throws with errno EEXIST when the pid is taken.
Spawned spawn_stopped(const SpawnRequest& request);

/// Lets the children that the calling thread makes from now on live in the pid namespace of the
/// process; they are our children all the same.
void make_children_in_namespace_of(const Fd& pidfd);

/// Ends that.  A thread cannot make threads while its children would live elsewhere.
void make_children_in_own_namespace();

/// Starts a program that is none of our business but for what we pass: `passed` become its
/// descriptors 3, 4 …, its standard streams are /dev/null, it has no other descriptors, no
/// arguments, no signal blocked, and a process group of its own, so that it hears nothing of a
/// terminal.  (posix_spawn(3): safe in a process with threads.)
pid_t spawn_program(const std::string& path, const char* name, std::span<const int> passed);

/// fork(2) of a process without threads, but that both go on with one table of descriptors.
/// Returns as fork does.
pid_t fork_with_one_table();

}  // namespace icecore::sys
