# SPDX-License-Identifier: Apache-2.0
#
# Buffers in a GPU by way of the module icecore, and of the functions that torch's pluggable allocator calls;
# in use by a thread all the time.
#
#     gpu_guest.py LIBCUDA FILE
import ctypes
import os
import sys
import threading

import icecore

BYTES = (3 << 20) + 12
FILE_OFFSET = 4096

cuda = ctypes.CDLL(sys.argv[1])
# As torch.cuda.memory.CUDAPluggableAllocator has them: by path and name.
allocator = ctypes.CDLL(os.environ["ICECORE_GUEST_LIBRARY"])
for name in ("icecore_guest_gpu_torch_keep", "icecore_guest_gpu_torch_drop"):
    getattr(allocator, name).argtypes = [ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]
    getattr(allocator, name).restype = ctypes.c_void_p
allocator.icecore_guest_gpu_torch_free.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]
allocator.icecore_guest_gpu_torch_free.restype = None


class Wrong(Exception):
    pass


def require(condition, text):
    if not condition:
        raise Wrong(text)


def must(result, text):
    require(result == 0, f"{text} gives {result}")


def use_context():
    context = ctypes.c_void_p()
    must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0), "cuDevicePrimaryCtxRetain")
    must(cuda.cuCtxSetCurrent(context), "cuCtxSetCurrent")


def write(address, data):
    must(cuda.cuMemcpyHtoD_v2(ctypes.c_uint64(address), data, ctypes.c_size_t(len(data))), "cuMemcpyHtoD")


def read(address, size):
    data = ctypes.create_string_buffer(size)
    must(cuda.cuMemcpyDtoH_v2(data, ctypes.c_uint64(address), ctypes.c_size_t(size)), "cuMemcpyDtoH")
    return data.raw


def free_bytes():
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    must(cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)), "cuMemGetInfo")
    return free.value


class Filled:
    """A buffer, and what should be in it."""

    def __init__(self, address, contents):
        require(address is not None, "no memory")
        self.address, self.contents = address, contents
        self.losses = icecore.gpu_losses(address)
        write(address, contents)

    def check(self):
        must(icecore.gpu_status(self.address), "gpu_status")
        losses = icecore.gpu_losses(self.address)
        if losses != self.losses:
            self.losses = losses
            require(read(self.address, BYTES) == bytes(BYTES), "what was dropped is not zero")
            write(self.address, self.contents)
        require(read(self.address, len(self.contents)) == self.contents, "bytes are others")


def keep_busy():
    use_context()
    while True:
        with icecore.gpu():
            try:
                filled[0].check()
            except Wrong as wrong:
                failures.append(str(wrong))
                return


def check(_):
    require(not failures, failures and failures[0])
    with icecore.gpu():
        for buffer in filled:
            buffer.check()
        must(icecore.gpu_status(of_file), "gpu_status")
        require(read(of_file, len(wanted)) == wanted, "the file's bytes are others")
    return "ok"


def losses(_):
    return " ".join(str(icecore.gpu_losses(buffer.address)) for buffer in filled)


def misuse(_):
    """What is wrong is said, and changes nothing."""
    for size, contents, file in (0, icecore.KEEP, None), (1, 7, None), (1, icecore.FILE, "/nowhere"):
        try:
            icecore.gpu_allocate(size, contents, file=file)
        except RuntimeError as error:
            require("CUDA error" in str(error), str(error))
        else:
            raise Wrong("was allocated")
    require(icecore.gpu_status(1) == 1, "status of what is none")
    require(allocator.icecore_guest_gpu_torch_keep(0, 0, None) is None, "nothing was allocated")
    require(allocator.icecore_guest_gpu_torch_keep(1 << 40, 0, None) is None, "more than there is was allocated")
    require(allocator.icecore_guest_gpu_torch_drop(1, 99, None) is None, "there is no such device")
    return "ok"


def forget(_):
    """All of it is free again."""
    with icecore.gpu():
        pass
    before = free_bytes()
    icecore.gpu_forget(of_file)
    try:
        icecore.gpu_forget(of_file)
    except RuntimeError:
        pass
    else:
        raise Wrong("forgotten twice")
    allocator.icecore_guest_gpu_torch_free(filled[3].address, BYTES, 0, None)
    allocator.icecore_guest_gpu_torch_free(filled[2].address, BYTES, 0, None)
    require(free_bytes() - before >= 3 * BYTES - FILE_OFFSET, "it is not free")
    require(icecore.gpu_status(filled[2].address) == 1, "it is not forgotten")
    return "ok"


must(cuda.cuInit(0), "cuInit")
use_context()
with open(sys.argv[2], "rb") as file:
    wanted = file.read()[FILE_OFFSET:]
failures = []
of_file = icecore.gpu_allocate(len(wanted), icecore.FILE, file=sys.argv[2], file_offset=FILE_OFFSET)
filled = [
    Filled(icecore.gpu_allocate(BYTES), os.urandom(BYTES)),
    Filled(icecore.gpu_allocate(BYTES, icecore.DROP), os.urandom(BYTES)),
    Filled(allocator.icecore_guest_gpu_torch_keep(BYTES, 0, None), os.urandom(BYTES)),
    Filled(allocator.icecore_guest_gpu_torch_drop(BYTES, 0, None), os.urandom(BYTES)),
]
threading.Thread(target=keep_busy, daemon=True).start()

answers = {"ping": lambda _: "pong", "check?": check, "losses?": losses, "misuse": misuse, "forget": forget}
print("ready", flush=True)
for line in sys.stdin:
    word = line.strip()
    try:
        print(answers[word](word), flush=True)
    except Wrong as wrong:
        print(f"wrong: {wrong}", flush=True)
os._exit(0)
