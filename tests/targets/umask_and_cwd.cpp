// SPDX-License-Identifier: Apache-2.0
//
// State: a file mode mask, and a working directory inside FOLDER.
#include <sys/stat.h>

#include <climits>

#include "target.hpp"

using namespace target;

int main(int, char** arguments) {
  const std::string folder = std::string{arguments[1]} + "/working directory";
  must(::mkdir(folder.c_str(), 0700), folder);
  must(::chdir(folder.c_str()), folder);
  ::umask(0137);
  return serve([&] {
    char here[PATH_MAX];
    require(::getcwd(here, sizeof here) != nullptr && here == folder, "another folder");
    require(::umask(0137) == 0137, "another umask");
    ::close(static_cast<int>(must(::open("created", O_WRONLY | O_CREAT, 0777), "created")));
    struct stat status {};
    must(::stat((folder + "/created").c_str(), &status), "the file was created elsewhere");
    require((status.st_mode & 0777) == 0640, "another mode");
    must(::unlink("created"), "unlink");
  });
}
