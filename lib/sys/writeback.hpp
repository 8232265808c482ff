// SPDX-License-Identifier: Apache-2.0
#pragma once

// When what was written to a file is on its disk, and in which order.
//
// Kernel facts relied on here:
//  * sync_file_range(2) with all three flags returns when the file's pages have been written, or
//    says why not (EIO, ENOSPC).  ext4 has put the blocks and the size into its journal's running
//    transaction by then (it converts unwritten extents before it ends the writeback, Linux 5.6).
//    The disk's own cache is not flushed and nothing is committed: alone it promises nothing.
//  * ext4 with data=ordered commits its transactions in order, and flushes the disk's cache before
//    each commit record.  What is linked after that call is therefore never on disk without its
//    contents, and one fsync(2) of the file commits both.
//  * Without that call the name can be on disk before the contents: a power cut leaves a file of
//    the right size with other bytes (tests/durability).
//  * A filesystem without a journal, or one that writes its names in another order, promises none
//    of this.  /proc/fs/ext4/DEVICE/options names every option, also those that are defaults and
//    that /proc/mounts therefore leaves out; "data=" is missing where there is no journal.

#include "sys/fd.hpp"

namespace icecore::sys {

/// Lets the disk begin with what was written to `file` so far.  Does not wait for it.
void start_writeback(const Fd& file) noexcept;

/// Waits until the disk has taken what was written to `file`: false, with errno, if it failed.
bool try_write_back(const Fd& file) noexcept;

/// A name that `file` gets after try_write_back() is never on disk without what is in the file, and
/// fsync(2) of the file brings the name along.  False wherever that is not known.
bool links_after_contents(const Fd& file);

}  // namespace icecore::sys
