// SPDX-License-Identifier: Apache-2.0
//
// State: files in FOLDER that have no name any more: open by several descriptors, mapped, mapped
// and closed, made with O_TMPFILE, one of two names deleted, replaced by another, renamed, and a
// library that an upgrade has replaced; and a device like /dev/null, deleted.
#include <sys/stat.h>

#include "memory.hpp"

using namespace target;

static std::string folder;

static int reopen(int file, int flags) {
  return static_cast<int>(
      must(::open(("/proc/self/fd/" + std::to_string(file)).c_str(), flags), "reopen"));
}

static std::string text_of(int file, std::size_t size, off_t offset = 0) {
  std::string text(size, '\0');
  must(::pread(file, text.data(), size, offset), "pread");
  return text;
}

static void put(int file, const std::string& text, off_t offset = 0) {
  must(::pwrite(file, text.data(), text.size(), offset), "pwrite");
}

static struct ::stat status_of(int file) {
  struct ::stat status {};
  must(::fstat(file, &status), "fstat");
  return status;
}

static int create(const std::string& name) {
  return static_cast<int>(
      must(::open((folder + "/" + name).c_str(), O_RDWR | O_CREAT | O_EXCL, 0640), name));
}

static void delete_name(const std::string& name) {
  must(::unlink((folder + "/" + name).c_str()), name);
}

static void move_name(const std::string& from, const std::string& to) {
  must(::rename((folder + "/" + from).c_str(), (folder + "/" + to).c_str()), "rename");
}

static int link_to(int file, const std::string& name) {
  return ::linkat(AT_FDCWD, ("/proc/self/fd/" + std::to_string(file)).c_str(), AT_FDCWD,
                  name.c_str(), AT_SYMLINK_FOLLOW);
}

int main(int, char** arguments) {
  folder = arguments[1];
  const std::uint64_t seed = random_number();

  const int deleted = create("deleted");
  put(deleted, "what nobody finds");
  put(deleted, "far away", 1 << 30);
  must(::fchmod(deleted, 0604), "fchmod");
  const bool given_away = ::fchown(deleted, 1, 2) == 0;  // where permitted
  const int reader = reopen(deleted, O_RDONLY);
  const int log = reopen(deleted, O_WRONLY | O_APPEND);
  must(::lseek(deleted, 5, SEEK_SET), "lseek");
  must(::link((folder + "/deleted").c_str(), (folder + "/deleted too").c_str()), "link");
  const int by_other_name =
      static_cast<int>(must(::open((folder + "/deleted too").c_str(), O_RDONLY), "deleted too"));
  delete_name("deleted");
  delete_name("deleted too");

  const int mapped = make_file(folder + "/mapped", 8, seed);
  const Pages shared = map(8, MAP_SHARED, PROT_READ | PROT_WRITE, mapped);
  const Pages changed = map(8, MAP_PRIVATE, PROT_READ | PROT_WRITE, mapped);
  fill(changed, 3, ~seed);
  ::close(mapped);
  delete_name("mapped");

  must(::mkdir((folder + "/gone").c_str(), 0700), "mkdir");
  const int in_gone = create("gone/file");
  put(in_gone, "its folder is gone as well");
  delete_name("gone/file");
  must(::rmdir((folder + "/gone").c_str()), "rmdir");

  const int unnamed =
      static_cast<int>(must(::open(folder.c_str(), O_TMPFILE | O_RDWR, 0600), "O_TMPFILE"));
  put(unnamed, "never had a name");

  const int linked = create("one name");
  put(linked, "two names");
  must(::link((folder + "/one name").c_str(), (folder + "/other name").c_str()), "link");
  delete_name("one name");

  const int replaced = create("configuration");
  put(replaced, "old");
  const int replacement = create("configuration.new");
  put(replacement, "new");
  move_name("configuration.new", "configuration");

  const int renamed = make_file(folder + "/renamed", 1, seed + 1);
  const Pages of_renamed = map(1, MAP_SHARED, PROT_READ, renamed);
  ::close(renamed);
  move_name("renamed", "has another name");

  // Where permitted.
  const std::string device_name = folder + "/null";
  const bool makes_devices = ::mknod(device_name.c_str(), S_IFCHR | 0600, 0x103) == 0;
  const int device = makes_devices ? ::open(device_name.c_str(), O_RDWR) : -1;
  if (makes_devices) delete_name("null");

  std::uint64_t number = shared.words(5)[7] = random_number();
  return serve(
      [&] {
        require(status_of(deleted).st_nlink == 0, "the deleted file has a name");
        require((status_of(deleted).st_mode & 0777) == 0604, "mode");
        require(!given_away || (status_of(deleted).st_uid == 1 && status_of(deleted).st_gid == 2),
                "another owner");
        require(status_of(deleted).st_size >= (1 << 30) + 8, "size");
        require(status_of(deleted).st_blocks < 1000, "its holes have been filled");
        require(text_of(reader, 17) == "what nobody finds", "contents");
        require(text_of(reader, 8, 1 << 30) == "far away", "contents behind the hole");
        require(::lseek(deleted, 0, SEEK_CUR) == 5 && ::lseek(reader, 0, SEEK_CUR) == 0,
                "positions");
        const off_t size = status_of(deleted).st_size;
        must(::write(log, "line", 4), "write");
        require(status_of(deleted).st_size == size + 4, "two descriptors lead to two files");
        require(status_of(by_other_name).st_size == size + 4, "two names lead to two files");
        require(::write(reader, "x", 1) == -1, "a descriptor for reading can write");
        require(link_to(deleted, folder + "/again") == -1 && errno == ENOENT, "it can be linked");

        require(shared.words(5)[7] == number, "what was written last");
        number = shared.words(5)[7] = random_number();
        expect(shared, 2, seed);
        expect(changed, 2, seed);
        expect(changed, 3, ~seed);
        require(changed.words(5)[7] == number, "the two mappings are of different files");
        require(text_of(in_gone, 26) == "its folder is gone as well",
                "contents of one in a folder");

        require(text_of(unnamed, 16) == "never had a name", "contents of the unnamed one");
        require(status_of(unnamed).st_nlink == 0, "the unnamed one has a name");

        require(text_of(linked, 9) == "two names" && status_of(linked).st_nlink == 1, "linked");
        struct ::stat other {};
        must(::stat((folder + "/other name").c_str(), &other), "stat");
        require(other.st_ino == status_of(linked).st_ino, "another file has the other name");
        require(text_of(replaced, 3) == "old" && text_of(replacement, 3) == "new", "replaced");
        expect(of_renamed, 0, seed + 1);
        if (device < 0) return;
        char byte;
        require(status_of(device).st_rdev == 0x103 && ::read(device, &byte, 1) == 0 &&
                    ::write(device, "x", 1) == 1,
                "another device");
      },
      {{"link", [&](const std::string& name) {
          return link_to(unnamed, folder + "/" + name) == 0 ? "linked" : std::strerror(errno);
        }}});
}
