// SPDX-License-Identifier: Apache-2.0
//
// State: files in FOLDER with locks of every kind (F_SETLK, F_OFD_SETLK, flock) and leases. Whether
// they are held, a child asks.
#include <sys/file.h>
#include <sys/wait.h>

#include <sstream>

#include "target.hpp"

using namespace target;

static int open_file(const std::string& path, int flags = O_RDWR | O_CREAT) {
  return static_cast<int>(must(::open(path.c_str(), flags | O_CLOEXEC, 0600), path));
}

static void lock(int file, int command, short type, off_t start, off_t length) {
  struct flock wanted {};
  wanted.l_type = type;
  wanted.l_start = start;
  wanted.l_len = length;
  must(::fcntl(file, command, &wanted), "lock");
}

/// What another process could not lock: "w" not at all, "r" not for writing, "-" nothing.
static char held(const std::string& path, off_t at) {
  const int file = open_file(path);
  struct flock probe {};
  probe.l_start = at;
  probe.l_len = 1;
  probe.l_type = F_RDLCK;
  must(::fcntl(file, F_OFD_GETLK, &probe), "F_OFD_GETLK");
  if (probe.l_type != F_UNLCK) return 'w';
  probe = {};
  probe.l_start = at;
  probe.l_len = 1;
  probe.l_type = F_WRLCK;
  must(::fcntl(file, F_OFD_GETLK, &probe), "F_OFD_GETLK");
  return probe.l_type != F_UNLCK ? 'r' : '-';
}

/// By a child: to close a descriptor of the file would drop the locks of this process.
static std::string locks_of(const std::string& path, const std::vector<off_t>& places) {
  int ends[2];
  must(::pipe(ends), "pipe");
  const pid_t child = static_cast<pid_t>(must(::fork(), "fork"));
  if (child == 0) {
    std::string answer;
    for (const off_t at : places) answer += held(path, at);
    std::_Exit(::write(ends[1], answer.data(), answer.size()) < 0);
  }
  ::close(ends[1]);
  char answer[64];
  const ssize_t count = must(::read(ends[0], answer, sizeof answer), "read");
  ::close(ends[0]);
  must(::waitpid(child, nullptr, 0), "waitpid");
  return {answer, static_cast<std::size_t>(count)};
}

static bool can_flock(const std::string& path, int how) {
  const int file = open_file(path);
  const bool can = ::flock(file, how | LOCK_NB) == 0;
  ::close(file);
  return can;
}

/// Whom /proc/locks names for the only lock of a file.
static pid_t owner_of_lock(const std::string& path) {
  struct stat status {};
  must(::stat(path.c_str(), &status), path);
  std::istringstream lines{read_file("/proc/locks")};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words{line};
    std::string number, kind, state, type, owner, file;
    words >> number >> kind >> state >> type >> owner >> file;
    if (file.substr(file.rfind(':') + 1) == std::to_string(status.st_ino)) return std::stoi(owner);
  }
  return 0;
}

int main(int, char** arguments) {
  const std::string folder = arguments[1];
  const std::string database = folder + "/database", whole = folder + "/whole",
                    shared = folder + "/shared", leased = folder + "/leased";
  const int file = open_file(database);
  must(::ftruncate(file, 4096), "ftruncate");
  lock(file, F_SETLK, F_WRLCK, 10, 10);
  lock(file, F_SETLK, F_RDLCK, 100, 1);
  lock(file, F_SETLK, F_WRLCK, 1 << 30, 0);
  const int other = open_file(database);
  lock(other, F_OFD_SETLK, F_RDLCK, 300, 5);

  const int exclusive = open_file(whole);
  must(::flock(exclusive, LOCK_EX), "flock");
  const int copy = static_cast<int>(must(::dup2(exclusive, 50), "dup2"));
  const int reader = open_file(shared);
  must(::flock(reader, LOCK_SH), "flock");
  ::close(open_file(leased));
  const int lease = open_file(leased, O_RDONLY);
  must(::fcntl(lease, F_SETLEASE, F_RDLCK), "F_SETLEASE");

  const int sole = open_file(folder + "/sole", O_WRONLY | O_CREAT);
  must(::fcntl(sole, F_SETLEASE, F_WRLCK), "F_SETLEASE for writing");

  return serve([&] {
    const std::string found =
        locks_of(database, {9, 10, 19, 20, 100, 101, 300, 304, 305, (1 << 30) - 1, off_t{1} << 40});
    require(found == "-ww-r-rr--w", "locks: " + found);
    require(!can_flock(whole, LOCK_SH), "the file is not locked");
    must(::flock(copy, LOCK_EX | LOCK_NB), "lock again by a duplicate");
    require(can_flock(shared, LOCK_SH) && !can_flock(shared, LOCK_EX), "no shared lock");
    require(::fcntl(lease, F_GETLEASE) == F_RDLCK, "no lease");
    require(::fcntl(sole, F_GETLEASE) == F_WRLCK, "no lease for writing");
    for (const std::string& path : {whole, shared, leased, folder + "/sole"})
      require(owner_of_lock(path) == ::getpid(), path + " is not locked by this process");
  });
}
