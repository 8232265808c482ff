# SPDX-License-Identifier: Apache-2.0
"""State: numpy with its BLAS threads started, and random matrices that exist nowhere else."""
import os
import sys

try:
    import numpy
except ImportError as error:
    print("skip:", error, flush=True)
    sys.exit()

generator = numpy.random.default_rng(int.from_bytes(os.urandom(8), "little"))
left, right = generator.random((400, 400)), generator.random((400, 400))
product = left @ right  # starts the threads
secret = generator.integers(1 << 62)


def check():
    generator.random(10)
    same = numpy.allclose(left @ right, product)
    inverse = numpy.linalg.inv(left)
    return "ok" if same and numpy.allclose(inverse @ left, numpy.eye(400), atol=1e-4) else "wrong"


print("ready", flush=True)
for line in sys.stdin:
    answers = {"ping": lambda: "pong", "secret?": lambda: secret, "check?": check}
    print(answers[line.strip()](), flush=True)
