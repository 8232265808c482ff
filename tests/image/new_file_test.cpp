// SPDX-License-Identifier: Apache-2.0
#include "image/new_file.hpp"

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstddef>

#include "image/failure.hpp"
#include "image/sample_image.hpp"
#include "support/skip.hpp"

namespace icecore::test::new_file_test {

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span{text});
  return {bytes.begin(), bytes.end()};
}

mode_t mode_of(const std::filesystem::path& path) {
  struct stat status;
  if (::stat(path.c_str(), &status) != 0) throw std::runtime_error("stat " + path.string());
  return status.st_mode & 07777;
}

std::size_t entries(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator{folder}, {}));
}

bool knows_unnamed_files(const std::filesystem::path& folder) {
  const sys::Fd fd{::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)};
  return static_cast<bool>(fd);
}

/// Files may not grow beyond `size_bytes` while this lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t size_bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{.rlim_cur = size_bytes, .rlim_max = before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    handler_before_ = ::signal(SIGXFSZ, SIG_IGN);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    ::signal(SIGXFSZ, handler_before_);
    ::setrlimit(RLIMIT_FSIZE, &before_);
  }

 private:
  rlimit before_;
  sighandler_t handler_before_;
};

TEST_CASE("a file appears whole, with mode 0600, and alone", "[new_file]") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "file";
  const mode_t umask_before = ::umask(GENERATE(0u, 0277u));
  const bool fsync = GENERATE(false, true);
  NewFile file{path};
  file.write_at(0, bytes_of("hello"));
  CHECK(!std::filesystem::exists(path));
  file.commit(fsync);
  ::umask(umask_before);

  CHECK(read_file(path) == bytes_of("hello"));
  CHECK(mode_of(path) == 0600);
  CHECK(entries(folder.path()) == 1);
}

TEST_CASE("a file takes the place of the one before", "[new_file]") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "file";
  write_file(path, bytes_of("before, and longer"));
  std::filesystem::permissions(path, std::filesystem::perms::all);
  NewFile file{path};
  file.write_at(0, bytes_of("after"));
  CHECK(read_file(path) == bytes_of("before, and longer"));
  file.commit(GENERATE(false, true));

  CHECK(read_file(path) == bytes_of("after"));
  CHECK(mode_of(path) == 0600);
  CHECK(entries(folder.path()) == 1);
}

TEST_CASE("an abandoned file leaves nothing, and what was there", "[new_file]") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "file";
  write_file(path, bytes_of("before"));
  {
    NewFile file{path};
    file.write_at(0, bytes_of("after"));
  }
  CHECK(read_file(path) == bytes_of("before"));
  CHECK(entries(folder.path()) == 1);
}

TEST_CASE("a file that is being written has no name", "[new_file]") {
  const TemporaryFolder folder;
  if (!knows_unnamed_files(folder.path())) {
    ::test::skip("this filesystem does not know O_TMPFILE");
    return;
  }
  NewFile file{folder.path() / "file"};
  file.write_at(0, bytes_of("hello"));
  CHECK(entries(folder.path()) == 0);
}

TEST_CASE("a path without a folder is one in the current folder", "[new_file]") {
  const TemporaryFolder folder;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  {
    NewFile file{"file"};
    file.commit(false);
  }
  std::filesystem::current_path(before);
  CHECK(std::filesystem::exists(folder.path() / "file"));
}

TEST_CASE("what cannot become a file is refused before anything is written", "[new_file]") {
  const TemporaryFolder folder;
  const auto code_of = [](const std::filesystem::path& path) {
    const auto failure = failure_of([&] { NewFile file{path}; });
    REQUIRE(failure);
    CHECK_THAT(failure->what(), Catch::Matchers::Contains(path.string()));
    return std::pair{failure->code(), failure->sys_errno()};
  };
  CHECK(code_of(folder.path()) == std::pair{Errc::io, EISDIR});
  CHECK(code_of("/dev/null") == std::pair{Errc::io, 0});
  CHECK(code_of(folder.path() / "no" / "such") == std::pair{Errc::io, ENOENT});
  CHECK(code_of(folder.path() / "").first == Errc::invalid_argument);
  CHECK(code_of("").first == Errc::invalid_argument);
  CHECK(entries(folder.path()) == 0);
}

TEST_CASE("a folder that takes no files is refused", "[new_file]") {
  // Modes do not stop root; /sys does.
  const auto failure = failure_of([] { NewFile file{"/sys/kernel/icecore-test"}; });
  REQUIRE(failure);
  const bool is_expected = failure->code() == Errc::permission || failure->code() == Errc::io;
  CHECK(is_expected);
  CHECK_THAT(failure->what(), Catch::Matchers::StartsWith("write /sys/kernel/icecore-test: "));
}

TEST_CASE("a folder without permission is refused as that", "[new_file]") {
  if (::geteuid() == 0) {
    ::test::skip("modes of folders do not stop root");
    return;
  }
  const TemporaryFolder folder;
  std::filesystem::permissions(
      folder.path(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  const auto failure = failure_of([&] { NewFile file{folder.path() / "file"}; });
  REQUIRE(failure);
  CHECK(failure->code() == Errc::permission);
}

TEST_CASE("a full disk is reported by name, and leaves nothing", "[new_file]") {
  const TemporaryFolder folder;
  {
    const FileSizeLimit limit{10000};
    NewFile file{folder.path() / "file"};
    const auto failure =
        failure_of([&] { file.write_at(0, std::vector<std::byte>(std::size_t{1} << 20)); });
    REQUIRE(failure);
    CHECK(failure->code() == Errc::io);
    CHECK(failure->sys_errno() == EFBIG);
    CHECK_THAT(failure->what(), Catch::Matchers::Contains((folder.path() / "file").string()));
  }
  CHECK(entries(folder.path()) == 0);
}

TEST_CASE("a disk that is full while pages are encoded is reported", "[new_file]") {
  const TemporaryFolder folder;
  const Encoding encoding = GENERATE(Encoding::raw, Encoding::zstd);
  Memory memory;
  memory.add(kHeap, random_pages(8 * 256, 1));
  {
    const FileSizeLimit limit{1 << 20};
    const auto failure = failure_of(
        [&] { write_image(folder.path() / "image", sample_manifest(), memory, encoding); });
    REQUIRE(failure);
    CHECK(failure->code() == Errc::io);
    CHECK(failure->sys_errno() == EFBIG);
  }
  CHECK(entries(folder.path()) == 0);
}

// ---- filesystems without O_TMPFILE ------------------------------------------------------------

/// From now on this process finds every filesystem to be one that does not know O_TMPFILE.
void forbid_unnamed_files() {
  constexpr std::uint32_t kUnnamed = O_TMPFILE & ~O_DIRECTORY;
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[2])),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, kUnnamed, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{.len = std::size(program), .filter = program};
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
    throw std::runtime_error("seccomp");
}

/// The exit status of `work` in a process of its own; 99 when it throws.
template <class Work>
int status_in_child(Work work) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      ::_exit(work());
    } catch (...) {
      ::_exit(99);
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_CASE("where files cannot be unnamed, a temporary name does", "[new_file]") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "file";
  const int status = status_in_child([&] {
    forbid_unnamed_files();
    if (knows_unnamed_files(folder.path())) return 1;
    {
      NewFile abandoned{path};
      if (entries(folder.path()) != 1) return 2;
    }
    if (entries(folder.path()) != 0) return 3;
    NewFile file{path};
    file.write_at(0, bytes_of("hello"));
    if (std::filesystem::exists(path)) return 4;
    file.commit(true);
    return 0;
  });
  CHECK(status == 0);
  CHECK(read_file(path) == bytes_of("hello"));
  CHECK(mode_of(path) == 0600);
  CHECK(entries(folder.path()) == 1);
}

}  // namespace icecore::test::new_file_test
