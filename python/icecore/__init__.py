# SPDX-License-Identifier: Apache-2.0
"""What a Python program does about being snapshotted and restored by icecore.

    import icecore

    @icecore.before_snapshot
    def close_connections(): ...

    @icecore.after_restore
    def open_connections(): ...

    if icecore.snapshot() == icecore.RESTORED:
        ...

Importing it is enough to have random numbers that differ from restore to restore: after each it gives new seeds to
`random`, to numpy's global generator and to OpenSSL, lets `uuid` forget its last time, and lets torch count its devices
again.  Each of these can be turned off: `icecore.reseed["numpy"] = False`.

The callbacks run on a thread of libicecore_guest.  Where that library is not installed, this module says so by
`icecore.available` and does nothing else.
"""

import ctypes
import os
import sys
import traceback

__all__ = [
    "GONE_ON", "RESTORED", "NOBODY", "LATE", "available", "reseed", "before_snapshot", "after_restore",
    "after_snapshot", "snapshot", "generation", "instance_id", "variable", "arguments", "KEEP", "DROP", "FILE",
    "gpu_allocate", "gpu_forget", "gpu_losses", "gpu_status", "gpu",
]

GONE_ON, RESTORED, NOBODY, LATE = range(4)
KEEP, DROP, FILE = range(3)  #: contents of buffers in GPUs

#: What is done after a restore, by name.  Set one to False to leave it alone.
reseed = {"random": True, "numpy": True, "uuid": True, "ssl": True, "torch": True}

_BEFORE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_AFTER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_before, _after_restore, _after_snapshot = [], [], []


def _load():
    named = os.environ.get("ICECORE_GUEST_LIBRARY")
    for name in [named] if named else ["libicecore_guest.so.0.1", "libicecore_guest.so"]:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.icecore_guest_generation.restype = ctypes.c_uint64
        library.icecore_guest_variable.restype = ctypes.c_char_p
        library.icecore_guest_variable.argtypes = [ctypes.c_char_p]
        library.icecore_guest_argument.restype = ctypes.c_char_p
        library.icecore_guest_argument.argtypes = [ctypes.c_size_t]
        library.icecore_guest_argument_count.restype = ctypes.c_size_t
        library.icecore_guest_generation_address.restype = ctypes.POINTER(ctypes.c_uint64)
        library.icecore_guest_gpu_forget.argtypes = [ctypes.c_ulonglong, ctypes.c_void_p]
        library.icecore_guest_gpu_status.argtypes = [ctypes.c_ulonglong]
        library.icecore_guest_gpu_losses.argtypes = [ctypes.c_ulonglong]
        library.icecore_guest_gpu_losses.restype = ctypes.c_uint64
        return library
    return None


_library = _load()
_address = None

#: Whether libicecore_guest is there and could start.
available = False


# ---- new seeds ------------------------------------------------------------------------------------


def _reseed_random():
    if "random" in sys.modules:
        sys.modules["random"].seed()


def _reseed_numpy():
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed(int.from_bytes(os.urandom(4), "little"))


def _reseed_uuid():
    if "uuid" in sys.modules:
        sys.modules["uuid"]._last_timestamp = None


def _reseed_ssl():
    # OpenSSL's own generators notice a fork, but not a restore.  What is added here is mixed in.
    if "_ssl" in sys.modules:
        import ssl

        ssl.RAND_add(os.urandom(48), 48.0)
        ssl.RAND_bytes(4096)


def _reseed_torch():
    cuda = sys.modules.get("torch.cuda")
    if cuda is None:
        return
    if hasattr(cuda, "_cached_device_count"):
        cuda._cached_device_count = None
    clear = getattr(cuda.device_count, "cache_clear", None)
    if clear is not None:
        clear()


_RESEEDERS = {
    "random": _reseed_random, "numpy": _reseed_numpy, "uuid": _reseed_uuid, "ssl": _reseed_ssl, "torch": _reseed_torch,
}


# ---- callbacks ------------------------------------------------------------------------------------


def _call_all(callbacks):
    """Calls every one, whatever the others do.  True when none failed."""
    good = True
    for callback in callbacks:
        try:
            callback()
        except BaseException:
            good = False
            traceback.print_exc()
    return good


@_BEFORE
def _on_before(_):
    return 0 if _call_all(reversed(list(_before))) else 1


@_AFTER
def _on_restore(_):
    _call_all([reseeder for name, reseeder in _RESEEDERS.items() if reseed.get(name)])
    _call_all(list(_after_restore))


@_AFTER
def _on_gone_on(_):
    _call_all(list(_after_snapshot))


def _start():
    global _address, available
    if _library is None:
        return
    address = _library.icecore_guest_generation_address()
    available = bool(address)
    if not available:
        return
    _address = address
    _library.icecore_guest_before_snapshot(_on_before, None)
    _library.icecore_guest_after_restore(_on_restore, None)
    _library.icecore_guest_after_snapshot(_on_gone_on, None)


_start()
# A child made by os.fork() has nothing of the library's: it starts again.
os.register_at_fork(after_in_child=_start)


# ---- what programs call -----------------------------------------------------------------------------


def before_snapshot(function):
    """Decorator: called before a snapshot, the latest first.  An exception refuses the snapshot."""
    _before.append(function)
    return function


def after_restore(function):
    """Decorator: called after a restore, in order, when the random generators have new seeds."""
    _after_restore.append(function)
    return function


def after_snapshot(function):
    """Decorator: called where the program goes on after a snapshot, or after one that failed."""
    _after_snapshot.append(function)
    return function


def snapshot(timeout=30.0):
    """Asks `icecore run --ready guest` for a snapshot; GONE_ON, RESTORED, NOBODY or LATE.

    Returns once in the process that was there before, and once in every restored one.
    """
    return _library.icecore_guest_snapshot(int(timeout * 1000)) if available else NOBODY


def generation():
    """0 before the first restore, one more after each."""
    return _address[0] if _address else 0


def instance_id():
    """128 bits, as 32 hexadecimal digits, that no other process has, nor this one before its restore."""
    if not available:
        return os.urandom(16).hex()
    value = ctypes.create_string_buffer(16)
    _library.icecore_guest_id(value)
    return value.raw.hex()


def variable(name, default=None):
    """A variable of this invocation (`icecore run --env NAME=VALUE`)."""
    value = _library.icecore_guest_variable(os.fsencode(name)) if available else None
    return default if value is None else os.fsdecode(value)


def arguments():
    """The arguments of this invocation, behind the second `--` of `icecore run`."""
    if not available:
        return []
    return [os.fsdecode(_library.icecore_guest_argument(i))
            for i in range(_library.icecore_guest_argument_count())]


# ---- buffers in GPUs ------------------------------------------------------------------------------


class _GpuOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("device", ctypes.c_int), ("contents", ctypes.c_int),
                ("file", ctypes.c_char_p), ("file_offset", ctypes.c_uint64)]


def _must(result):
    if result != 0:
        raise RuntimeError(f"icecore: CUDA error {result}")


def gpu_allocate(size, contents=KEEP, device=0, file=None, file_offset=0):
    """Device memory that libicecore_guest takes care of; its address.  See docs/gpu.md."""
    if not available:
        raise RuntimeError("icecore: libicecore_guest is not there")
    options = _GpuOptions(ctypes.sizeof(_GpuOptions), device, contents, None if file is None else os.fsencode(file),
                          file_offset)
    address = ctypes.c_ulonglong()
    _must(_library.icecore_guest_gpu_allocate(ctypes.byref(options), ctypes.c_size_t(size), ctypes.byref(address)))
    return address.value


def gpu_forget(address):
    """Frees it."""
    _must(_library.icecore_guest_gpu_forget(address, None))


def gpu_losses(address):
    """How often its contents became zeros."""
    return _library.icecore_guest_gpu_losses(address)


def gpu_status(address):
    """0: it is there; else the CUDA error for which it could not be brought back."""
    return _library.icecore_guest_gpu_status(address)


class gpu:
    """`with icecore.gpu():` around work that uses such buffers.  Waits while a snapshot has them."""

    def __enter__(self):
        if available:
            _library.icecore_guest_gpu_enter()
        return self

    def __exit__(self, *_):
        if available:
            _library.icecore_guest_gpu_leave()
