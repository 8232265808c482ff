# SPDX-License-Identifier: Apache-2.0
#
# Trains a small network, the same way at each run: 20 steps, "ready", waits for a line (or the end of its
# input), and 30 steps whose losses it prints to the last bit.
#
#     gpu_torch.py cuda|cpu
import sys

import torch

device = torch.device(sys.argv[1])
torch.manual_seed(1)
torch.backends.cuda.matmul.allow_tf32 = False
model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.Tanh(), torch.nn.Linear(256, 1)).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
inputs = torch.randn(128, 64, device=device)
wanted = torch.randn(128, 1, device=device)


def step():
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(model(inputs), wanted)
    loss.backward()
    optimizer.step()
    return loss.item().hex()


for _ in range(20):
    step()
print("ready", flush=True)
sys.stdin.readline()
for _ in range(30):
    print(step(), flush=True)
sys.stdin.readline()
