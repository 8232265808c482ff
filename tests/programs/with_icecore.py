# SPDX-License-Identifier: Apache-2.0
#
# Imports the module icecore and answers with random numbers from everywhere.
import os
import random
import secrets
import ssl
import subprocess
import sys
import uuid

import numpy

import icecore

restored = 0
failing = False

# Every generator has been used before the snapshot.
random.random()
numpy.random.rand()
uuid.uuid1()
uuid.uuid4()
ssl.RAND_bytes(16)


@icecore.after_restore
def count():
    global restored
    restored += 1


@icecore.before_snapshot
def fail():
    if failing:
        raise RuntimeError("not now")


def begin_to_fail():
    global failing
    failing = True
    return "done"


ANSWERS = {
    "ping": lambda: "pong",
    "available?": lambda: icecore.available,
    "restored?": lambda: restored,
    "generation?": icecore.generation,
    "fail": begin_to_fail,
    "urandom": lambda: os.urandom(16).hex(),
    "random": lambda: random.getrandbits(128),
    "numpy": lambda: numpy.random.randint(0, 2**62, 2).tolist(),
    "uuid4": uuid.uuid4,
    "uuid1": uuid.uuid1,
    "ssl": lambda: ssl.RAND_bytes(16).hex(),
    "secrets": lambda: secrets.token_hex(16),
    "id": icecore.instance_id,
    "openssl": lambda: subprocess.run(["openssl", "rand", "-hex", "16"], check=True, capture_output=True,
                                      text=True).stdout.strip(),
}

print("ready", flush=True)
while True:
    line = sys.stdin.readline()
    if not line:
        break
    print(ANSWERS[line.strip()](), flush=True)
