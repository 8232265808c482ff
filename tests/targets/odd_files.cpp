// SPDX-License-Identifier: Apache-2.0
//
// State: places that are not opened (O_PATH), a fifo in FOLDER with both ends and bytes in it, a
// pipe with packets, pipes opened for reading and writing, and files that the kernel makes up.
#include <dirent.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "target.hpp"

using namespace target;

static int open_file(const std::string& path, int flags) {
  return static_cast<int>(must(::open(path.c_str(), flags, 0600), path));
}

static std::string read_some(int file) {
  char bytes[8192];
  return {bytes, static_cast<std::size_t>(must(::read(file, bytes, sizeof bytes), "read"))};
}

static void put(int file, const std::string& text) {
  must(::write(file, text.data(), text.size()), "write");
}

static ino_t inode(int file) {
  struct ::stat status {};
  must(::fstat(file, &status), "fstat");
  return status.st_ino;
}

int main(int, char** arguments) {
  const std::string folder = arguments[1];
  ::close(open_file(folder + "/file", O_RDWR | O_CREAT));
  must(::symlink("file", (folder + "/link").c_str()), "symlink");
  const int place = open_file(folder, O_PATH | O_DIRECTORY);
  const int file = open_file(folder + "/file", O_PATH | O_CLOEXEC);
  const int link = open_file(folder + "/link", O_PATH | O_NOFOLLOW);
  const ino_t inodes[] = {inode(place), inode(file), inode(link)};

  const std::string fifo = folder + "/fifo";
  must(::mkfifo(fifo.c_str(), 0600), "mkfifo");
  const int reader = open_file(fifo, O_RDONLY | O_NONBLOCK), writer = open_file(fifo, O_WRONLY);
  must(::fcntl(reader, F_SETPIPE_SZ, 8192), "F_SETPIPE_SZ");
  put(writer, "in the fifo");

  int packets[2];
  must(::pipe2(packets, O_DIRECT), "pipe2");
  const std::string full(4096, 'f');
  const std::vector<std::string> sent = {"one", full, "", "three", full};
  const auto send = [&] {
    for (const std::string& packet : sent)
      if (!packet.empty()) put(packets[1], packet);
  };
  send();
  int ends[2];
  must(::pipe(ends), "pipe");
  const int both = open_file("/proc/self/fd/" + std::to_string(ends[0]), O_RDWR);
  ::close(ends[0]);
  ::close(ends[1]);
  put(both, "both ways");

  const int maps = open_file("/proc/self/maps", O_RDONLY);
  const int status = open_file("/proc/self/status", O_RDONLY);
  const int memory = open_file("/proc/self/mem", O_RDWR);
  const int meminfo = open_file("/proc/meminfo", O_RDONLY);
  const int possible = open_file("/sys/devices/system/cpu/possible", O_RDONLY);
  const std::string cpus = read_some(possible);
  DIR* const descriptors = ::opendir("/proc/self/fd");
  must(::lseek(meminfo, 10, SEEK_SET), "lseek");
  std::uint64_t number = random_number();

  return serve([&] {
    require(inode(place) == inodes[0] && inode(file) == inodes[1] && inode(link) == inodes[2],
            "O_PATH leads elsewhere");
    char byte;
    require(::read(file, &byte, 1) == -1 && errno == EBADF, "O_PATH can be read");
    require(::fcntl(link, F_GETFL) == (O_PATH | O_NOFOLLOW), "flags of O_PATH");
    ::close(static_cast<int>(must(::openat(place, "file", O_RDONLY), "openat")));

    require(read_some(reader) == "in the fifo", "what is in the fifo");
    require(::read(reader, &byte, 1) == -1 && errno == EAGAIN, "the fifo has no writer");
    require(::fcntl(writer, F_GETPIPE_SZ) == 8192, "capacity of the fifo");
    put(writer, "in the fifo");

    for (const std::string& packet : sent)
      if (!packet.empty()) require(read_some(packets[0]) == packet, "other packets");
    send();
    require((::fcntl(packets[1], F_GETFL) & O_DIRECT) != 0, "O_DIRECT is gone");
    require(read_some(both) == "both ways", "what is in the pipe");
    put(both, "both ways");

    must(::lseek(maps, 0, SEEK_SET), "lseek");
    std::string text;
    for (std::string more; !(more = read_some(maps)).empty();) text += more;
    require(text.find("[stack]") != std::string::npos, "no map of this process");
    must(::lseek(status, 0, SEEK_SET), "lseek");
    require(
        read_some(status).find("Pid:\t" + std::to_string(::getpid()) + "\n") != std::string::npos,
        "the status of another process");
    std::uint64_t found = 0;
    must(::pread(memory, &found, sizeof found, reinterpret_cast<off_t>(&number)), "pread");
    require(found == number, "the memory of another process");
    require(::lseek(meminfo, 0, SEEK_CUR) == 10, "position in /proc/meminfo");
    must(::lseek(possible, 0, SEEK_SET), "lseek");
    require(read_some(possible) == cpus, "a file of /sys");
    ::rewinddir(descriptors);
    int count = 0;
    while (const dirent* entry = ::readdir(descriptors)) count += entry->d_name[0] != '.';
    require(count >= 16, "descriptors of another process");
  });
}
