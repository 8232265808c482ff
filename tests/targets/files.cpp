// SPDX-License-Identifier: Apache-2.0
//
// State: open files in FOLDER: positions, flags, a position that two descriptors share, a directory
// read half, and devices.
#include <dirent.h>
#include <sys/stat.h>

#include "target.hpp"

using namespace target;

static int open_file(const std::string& path, int flags) {
  return static_cast<int>(must(::open(path.c_str(), flags | O_CREAT, 0600), path));
}

static std::vector<std::string> read_rest(DIR* directory) {
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(directory)) names.emplace_back(entry->d_name);
  return names;
}

int main(int, char** arguments) {
  const std::string folder = arguments[1];
  const int file = open_file(folder + "/read_write", O_RDWR);
  const int copy = static_cast<int>(must(::dup2(file, 40), "dup2"));
  const int other = open_file(folder + "/read_write", O_RDONLY | O_CLOEXEC);
  const int log = open_file(folder + "/log", O_WRONLY | O_APPEND);
  must(::write(file, "0123456789abcdef", 16), "write");
  must(::lseek(file, 5, SEEK_SET), "lseek");
  must(::lseek(other, 11, SEEK_SET), "lseek");

  const std::string many = folder + "/many";
  must(::mkdir(many.c_str(), 0700), many);
  for (int index = 0; index < 200; ++index)
    ::close(open_file(many + "/" + std::to_string(index), O_RDONLY));
  DIR* const directory = ::opendir(many.c_str());
  for (int index = 0; index < 50; ++index) ::readdir(directory);
  const long position = ::telldir(directory);
  const std::vector<std::string> rest = read_rest(directory);
  ::seekdir(directory, position);

  const int null = open_file("/dev/null", O_RDWR), zero = open_file("/dev/zero", O_RDONLY);
  ::close(45);  // a gap: numbers are not dense

  return serve([&] {
    require(::lseek(file, 0, SEEK_CUR) == 5 && ::lseek(copy, 0, SEEK_CUR) == 5, "position");
    require(::lseek(other, 0, SEEK_CUR) == 11, "the position of another description");
    must(::lseek(copy, 7, SEEK_SET), "lseek");
    require(::lseek(file, 0, SEEK_CUR) == 7, "the position is no longer shared");
    char byte = 0;
    require(::read(file, &byte, 1) == 1 && byte == '7', "another byte at the position");
    must(::lseek(file, 5, SEEK_SET), "lseek");

    must(::lseek(log, 0, SEEK_SET), "lseek");
    must(::write(log, "line\n", 5), "write");
    require(::lseek(log, 0, SEEK_CUR) == ::lseek(log, 0, SEEK_END), "O_APPEND is gone");
    require(::fcntl(other, F_GETFD) == FD_CLOEXEC && ::fcntl(file, F_GETFD) == 0, "FD_CLOEXEC");
    require((::fcntl(other, F_GETFL) & O_ACCMODE) == O_RDONLY, "access mode");

    require(read_rest(directory) == rest, "the rest of the directory");
    ::seekdir(directory, position);
    require(::write(null, "x", 1) == 1 && ::read(null, &byte, 1) == 0, "/dev/null");
    require(::read(zero, &byte, 1) == 1 && byte == 0, "/dev/zero");
  });
}
