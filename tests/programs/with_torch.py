# SPDX-License-Identifier: Apache-2.0
"""State: torch with its threads started, and a small model trained on random data."""
import os
import sys

try:
    import torch
except ImportError as error:
    print("skip:", error, flush=True)
    sys.exit()

torch.manual_seed(int.from_bytes(os.urandom(7), "little"))
model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.Tanh(), torch.nn.Linear(256, 8))
batch = torch.randn(128, 64)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)


def train():
    optimizer.zero_grad()
    loss = model(batch).square().mean()
    loss.backward()
    optimizer.step()
    return loss.item()


first_loss = train()
probe = torch.randn(1, 64)


def check():
    return "ok" if train() < first_loss and torch.isfinite(model(probe)).all() else "wrong"


secret = float(probe.double().sum())
print("ready", flush=True)
for line in sys.stdin:
    answers = {"ping": lambda: "pong", "secret?": lambda: repr(secret), "check?": check}
    print(answers[line.strip()](), flush=True)
