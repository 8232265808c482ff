# SPDX-License-Identifier: Apache-2.0
"""Cuts the power while icecore writes images: whatever the disk then holds, an image is whole or not there.

    power_cut.py ICECORE

The disk is a file of a FUSE filesystem of our own, which writes down each write and each flush of the ext4 on it.  A
power cut is a moment in that record: what came before the last flush is there, of the rest each block is there or not.
The filesystem is mounted as the cut left it, and must hold every image whose snapshot had reported success, and none
that differs from what was written.  A writer that gives its file a name too early has to be caught, or the test proves
nothing.  Meanwhile others make the journal commit at moments of their own.
"""
import ctypes
import hashlib
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading

DISK_BYTES = 64 << 20
BLOCK = 4096
CUTS = 80
SKIPPED = 77
libc = ctypes.CDLL(None, use_errno=True)


def mount_fuse(fd, where):
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"disk", os.fsencode(where), b"fuse", 0, options) != 0:
        raise OSError(ctypes.get_errno(), "mount a FUSE filesystem")


class Disk:
    """A FUSE filesystem with one file, `disk`.  `record` holds (offset, bytes), "flush" and ("done", name)."""

    ROOT, FILE = 1, 2
    LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, RELEASE, FSYNC, FLUSH, INIT, OPENDIR, RELEASEDIR = (
        1, 2, 3, 4, 14, 15, 16, 18, 20, 25, 26, 27, 29)
    BATCH_FORGET = 42
    FOREVER_S = 9999
    DIRECT_IO = 1
    WRITE_HEADER_BYTES = REQUEST_HEADER_BYTES = 40
    LARGEST_WRITE = 1 << 20

    def __init__(self, contents, where):
        self.contents = bytearray(contents)
        self.record = []
        self.lock = threading.Lock()
        self.fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        mount_fuse(self.fuse, where)
        for _ in range(3):
            threading.Thread(target=self.serve, daemon=True).start()

    def note(self, entry):
        with self.lock:
            self.record.append(entry)

    def serve(self):
        while True:
            try:
                request = os.read(self.fuse, self.LARGEST_WRITE + BLOCK)
            except OSError:
                return  # unmounted
            _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
            if opcode in (self.FORGET, self.BATCH_FORGET):
                continue
            error, answer = self.answer(opcode, node, request[self.REQUEST_HEADER_BYTES:])
            os.write(self.fuse, struct.pack("<IiQ", 16 + len(answer), error, unique) + answer)

    def answer(self, opcode, node, body):
        if opcode == self.INIT:
            return 0, struct.pack("<IIIIHHIIHH", 7, 31, self.LARGEST_WRITE, 1 << 5, 12, 9, self.LARGEST_WRITE, 1, 256,
                                  0).ljust(64, b"\0")
        if opcode == self.LOOKUP:
            if body.rstrip(b"\0") != b"disk":
                return -2, b""
            return 0, struct.pack("<QQQQII", self.FILE, 0, self.FOREVER_S, self.FOREVER_S, 0, 0) + self.attributes(
                self.FILE)
        if opcode in (self.GETATTR, self.SETATTR):
            return 0, struct.pack("<QII", self.FOREVER_S, 0, 0) + self.attributes(node)
        if opcode in (self.OPEN, self.OPENDIR):
            return 0, struct.pack("<QII", 0, self.DIRECT_IO, 0)
        if opcode == self.READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return 0, bytes(self.contents[offset:offset + size])
        if opcode == self.WRITE:
            _, offset, size = struct.unpack_from("<QQI", body)
            data = body[self.WRITE_HEADER_BYTES:self.WRITE_HEADER_BYTES + size]
            with self.lock:
                self.contents[offset:offset + size] = data
                self.record.append((offset, data))
            return 0, struct.pack("<II", size, 0)
        if opcode == self.FSYNC:
            self.note("flush")
            return 0, b""
        if opcode in (self.FLUSH, self.RELEASE, self.RELEASEDIR):
            return 0, b""
        return -38, b""

    def attributes(self, node):
        mode, links, size = (0o40755, 2, 0) if node == self.ROOT else (0o100600, 1, DISK_BYTES)
        return struct.pack("<6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, links, 0, 0, 0, BLOCK, 0)


class Noise:
    """Makes the journal commit, and the disk flush, all the time."""

    def __init__(self, folder):
        self.folder = folder
        self.stop = False
        self.threads = [threading.Thread(target=self.work, args=(i,)) for i in range(2)]

    def work(self, number):
        while not self.stop:
            fd = os.open(f"{self.folder}/.noise{number}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            os.write(fd, os.urandom(100))
            os.fsync(fd)
            os.close(fd)

    def __enter__(self):
        for thread in self.threads:
            thread.start()

    def __exit__(self, *_):
        self.stop = True
        for thread in self.threads:
            thread.join()


class Mounted:
    """`file` mounted at `where`; its loop device goes with the mount."""

    def __init__(self, file, options, where):
        subprocess.run(["mount", "-t", "ext4", "-o", f"loop,{options}", file, where], check=True)
        self.where = where

    def __enter__(self):
        return self.where

    def __exit__(self, *_):
        subprocess.run(["umount", self.where], check=True)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def visible(folder):
    return {name for name in os.listdir(folder) if name != "lost+found" and not name.startswith(".")}


def write_down(work, options, writers):
    """What a fresh disk was told while `writers` wrote a file each, the disk before, and the files' digests."""
    empty = f"{work}/empty"
    with open(empty, "wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", str(BLOCK), empty], check=True)
    with open(empty, "rb") as file:
        before = file.read()
    disk = Disk(before, f"{work}/fuse")
    digests = {}
    with Mounted(f"{work}/fuse/disk", options, f"{work}/mounted") as folder, Noise(folder):
        for number, write in enumerate(writers):
            name = f"file{number}"
            write(f"{folder}/{name}")
            disk.note(("done", name))
            digests[name] = digest(f"{folder}/{name}")
    subprocess.run(["umount", f"{work}/fuse"], check=True)
    return before, disk.record, digests


def is_write(entry):
    return isinstance(entry[0], int)


def leave(disk, entries, share):
    """Puts onto `disk` about `share` of the blocks of `entries`."""
    for offset, data in filter(is_write, entries):
        for start in range(0, len(data), BLOCK):
            if random.random() < share:
                block = data[start:start + BLOCK]
                disk[offset + start:offset + start + len(block)] = block


def cut(work, options, before, record, digests):
    """Cuts the power at CUTS moments.  What was wrong then, and how many of the files looked at had no success yet."""
    wrong, unfinished = [], 0
    safe, disk = 0, bytearray(before)  # record[:safe] is on `disk`
    for moment in sorted(random.randrange(1, len(record) + 1) for _ in range(CUTS)):
        flushes = [i for i in range(safe, moment) if record[i] == "flush"]
        if flushes:
            leave(disk, record[safe:flushes[-1]], 1)
            safe = flushes[-1]
        share = random.choice([0, 0.5, 0.9, 1])
        left = bytearray(disk)
        leave(left, record[safe:moment], share)
        with open(f"{work}/left", "wb") as file:
            file.write(left)
        done = {entry[1] for entry in record[:moment] if entry[0] == "done"}
        with Mounted(f"{work}/left", options, f"{work}/mounted") as folder:
            there = visible(folder)
            unfinished += len(there - done)
            said = f"moment {moment} of {len(record)}, {share:.0%} of what was not flushed"
            wrong += [f"{said}: {name} is not there" for name in sorted(done - there)]
            wrong += [f"{said}: {name} differs, {os.path.getsize(f'{folder}/{name}')} bytes"
                      for name in sorted(there) if digest(f"{folder}/{name}") != digests[name]]
    return wrong, unfinished


def snapshot_of(icecore, pid, *options):
    return lambda path: subprocess.run([icecore, "snapshot", str(pid), "-o", path, *options], check=True,
                                       stdout=subprocess.DEVNULL)


def name_first(path):
    """As icecore does, but for the order: the journal commits the name before the contents are on their way."""
    folder = os.path.dirname(path)
    fd = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, os.urandom(300_000))
    os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd)  # any, for linkat(2) with AT_SYMLINK_FOLLOW
    other = os.open(f"{folder}/.other", os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(other, b"x")
    os.fsync(other)
    os.close(other)
    os.fsync(fd)
    os.close(fd)


def skip_unless_possible():
    if os.geteuid() != 0:
        reason = "mounting needs root"
    elif not os.path.exists("/dev/fuse"):
        reason = "there is no /dev/fuse"
    elif subprocess.run(["losetup", "-f"], capture_output=True, check=False).returncode != 0:
        reason = "there is no free loop device"
    elif libc.unshare(0x00020000) != 0 or libc.mount(None, b"/", None, 1 << 18 | 1 << 14, None) != 0:
        reason = "no mount namespace of our own: " + os.strerror(ctypes.get_errno())
    else:
        return
    print("SKIPPED:", reason)
    sys.exit(SKIPPED)


def main(icecore):
    skip_unless_possible()
    with tempfile.TemporaryDirectory() as folder:
        return test(icecore, folder)


def test(icecore, folder):
    seed = int.from_bytes(os.urandom(4), "little")
    random.seed(seed)
    print(f"seed {seed}")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    for name in ("fuse", "mounted"):
        os.mkdir(f"{folder}/{name}")
    ready = "print(flush=True); input()"
    with subprocess.Popen(["/usr/bin/python3", "-c", ready], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as target:
        target.stdout.readline()
        raw, small = snapshot_of(icecore, target.pid), snapshot_of(icecore, target.pid, "--compress", "zstd")
        cases = [("data=ordered", [raw, small] * 3, False), ("data=writeback", [raw, small] * 2, False),
                 ("data=ordered", [name_first] * 6, True)]
        failed = False
        for options, writers, must_be_caught in cases:
            wrong, unfinished = cut(folder, options, *write_down(folder, options, writers))
            who = "a name before its contents" if must_be_caught else "icecore snapshot"
            print(f"{options}, {who}: {CUTS} power cuts, {len(wrong)} found something wrong; {unfinished} times a file "
                  "was there before its writer had said so")
            if must_be_caught:
                failed |= not wrong
            else:
                failed |= bool(wrong)
                print(*wrong[:10], sep="\n", end="\n" if wrong else "")
        target.communicate(b"end\n")
        if target.returncode != 0:
            print(f"the target ended with {target.returncode}")
            failed = True
    subprocess.run(["umount", folder], check=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
