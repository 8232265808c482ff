# SPDX-License-Identifier: Apache-2.0
#
# A database in WAL mode in the middle of a transaction (locks, a mapped index), a temporary file,
# and one in memory.
import mmap
import os
import secrets
import sqlite3
import sys
import tempfile

folder = sys.argv[1]
secret = secrets.token_hex(8)

database = sqlite3.connect(os.path.join(folder, "database"), isolation_level=None)
assert database.execute("pragma journal_mode = wal").fetchone()[0] == "wal"
database.execute("create table kept (secret)")
database.execute("begin immediate")
database.execute("insert into kept values (?)", (secret,))

temporary = tempfile.TemporaryFile(dir=folder)
temporary.write(secret.encode())
temporary.flush()

in_memory = os.memfd_create("python")
os.truncate(in_memory, 8192)
memory = mmap.mmap(in_memory, 8192)
memory[5000 : 5000 + len(secret)] = secret.encode()


def another_cannot_write():
    """Asked by a child: a connection of this process would share its locks."""
    child = os.fork()
    if child == 0:
        other = sqlite3.connect(os.path.join(folder, "database"), timeout=0, isolation_level=None)
        try:
            other.execute("begin immediate")
            os._exit(1)
        except sqlite3.OperationalError:
            os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def check():
    global secret
    assert database.in_transaction
    assert database.execute("select secret from kept").fetchall() == [(secret,)]
    assert another_cannot_write()
    database.execute("commit")
    database.execute("begin immediate")
    temporary.seek(0)
    assert temporary.read().decode() == secret
    assert memory[5000 : 5000 + len(secret)].decode() == secret
    assert os.pread(in_memory, len(secret), 5000).decode() == secret
    assert database.execute("pragma integrity_check").fetchone()[0] == "ok"
    return "ok"


print("ready", flush=True)
for line in sys.stdin:
    print(secret if line.strip() == "secret?" else check(), flush=True)
