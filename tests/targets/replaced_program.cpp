// SPDX-License-Identifier: Apache-2.0
//
// State: a program that runs from a file without a name: "file FOLDER", deleted after it began,
// with a library that an upgrade has replaced; or "memfd", run from memory.
#include <dlfcn.h>

#include <cmath>

#include "target.hpp"

using namespace target;

static void write_file(int file, const std::string& bytes) {
  must(::write(file, bytes.data(), bytes.size()), "write");
}

static std::string link_of(const char* path) {
  char name[4096];
  return {name, static_cast<std::size_t>(must(::readlink(path, name, sizeof name), path))};
}

static int create(const std::string& path) {
  return static_cast<int>(must(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0755), path));
}

/// The same program again, from another file.
static void run_again(const std::string& how, const std::string& folder) {
  const std::string program = read_file("/proc/self/exe");
  char* const arguments[] = {const_cast<char*>(how.c_str()), const_cast<char*>("again"),
                             const_cast<char*>(folder.c_str()), nullptr};
  if (how == "memfd") {
    const int file =
        static_cast<int>(must(::syscall(SYS_memfd_create, "program", 1U), "memfd_create"));
    write_file(file, program);
    const int again = static_cast<int>(must(
        ::open(("/proc/self/fd/" + std::to_string(file)).c_str(), O_RDONLY | O_CLOEXEC), "open"));
    ::close(file);
    must(::fexecve(again, arguments, environ), "fexecve");
  }
  const int file = create(folder + "/program");
  write_file(file, program);
  ::close(file);
  must(::execv((folder + "/program").c_str(), arguments), "execv");
}

/// Not called before a snapshot; nothing but the file has its page.
__attribute__((noinline, aligned(4096), section(".text.late"))) static int late(int number) {
  return number * 3 + 1;
}

int main(int count, char** arguments) {
  const std::string first = arguments[1];
  const std::string folder = count > 2 ? arguments[2] : "";
  if (first != "again") run_again(first, folder);

  const std::string program = read_file("/proc/self/exe");
  double (*cube_root)(double) = [](double) { return 3.0; };
  if (!folder.empty()) {
    const std::string path = folder + "/libm.so.6";
    Dl_info info;
    require(::dladdr(reinterpret_cast<const void*>(&std::strtod), &info) != 0, "dladdr");
    std::string libm = info.dli_fname;
    libm.replace(libm.rfind('/') + 1, std::string::npos, "libm.so.6");
    const int file = create(path);
    write_file(file, read_file(libm));
    ::close(file);
    void* const library = ::dlmopen(LM_ID_NEWLM, path.c_str(), RTLD_NOW);
    require(library != nullptr, "dlmopen");
    cube_root = reinterpret_cast<double (*)(double)>(::dlsym(library, "cbrt"));
    must(::unlink(path.c_str()), "unlink");
    write_file(create(path), "the next version");
    must(::unlink((folder + "/program").c_str()), "unlink");
    write_file(create(folder + "/program"), "the next version");
  }

  return serve([&] {
    require(link_of("/proc/self/exe").ends_with(" (deleted)"), "the program has a name");
    require(read_file("/proc/self/exe") == program, "another program");
    require(late(13) == 40, "another function");
    require(std::abs(cube_root(27.0) - 3.0) < 1e-9, "another library");
  });
}
