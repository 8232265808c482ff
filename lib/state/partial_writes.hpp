// SPDX-License-Identifier: Apache-2.0
#pragma once

// Writes that wait for room in a pipe or socket and have written a part.
//
// Linux ends such a call when its thread is stopped: it returns the part, although no signal has
// come, and a program in blocking mode may not look.  So either the call has written nothing, or
// all:
//  * what it has put into a pipe that only this process has open, and what nobody has read yet, is
//    taken out again: the call is made anew;
//  * otherwise the rest is written for it, into a pipe that is made larger for that, or a stream of
//    unix(7).  It returns before there would have been room.
//
// Were icecore killed meanwhile, its testament does what is left to do, so that the bytes that the
// call says it has written have been written once.  Only in the very moment between a call of ours
// and the word for the testament they could come twice or be lost.
//
// Left as they are: more than that takes, what a timeout (SO_SNDTIMEO) or a signal may have ended,
// TCP, terminals.

#include "tracee/frozen_process.hpp"

namespace icecore {

/// To be called when the process has been frozen; it may run on from here.
void settle_partial_writes(FrozenProcess& process);

}  // namespace icecore
