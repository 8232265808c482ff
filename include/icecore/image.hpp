// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <icecore/export.h>
#include <icecore/progress.hpp>
#include <icecore/snapshot.hpp>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

namespace icecore {

/// What an image holds, for people and scripts.  Plain values; nothing here points into the image.
struct ImageInfo {
  std::uint16_t major_version = 0;
  std::uint16_t minor_version = 0;
  Encoding encoding = Encoding::raw;
  std::uint64_t image_bytes = 0;
  std::uint64_t stored_pages = 0;

  pid_t pid = 0;
  std::string name;                    ///< comm of the process
  std::string executable;              ///< path
  std::vector<std::string> arguments;  ///< argv
  std::string working_directory;
  std::string kernel_release;  ///< of the machine the snapshot was taken on
  std::string cpu_baseline;    ///< the program was kept to, or empty

  struct Thread {
    pid_t tid = 0;
    std::string name;
    std::string
        blocked_in;  ///< system call it was in, as "futex" or "syscall 202"; empty: user code
  };
  std::vector<Thread> threads;

  struct Mapping {
    std::uint64_t start = 0;
    std::uint64_t end = 0;
    std::string protection;  ///< as in /proc/PID/maps: "rw-p"
    std::uint64_t offset = 0;
    std::string name;  ///< path, "[heap]", "[stack]", "[vdso]" …, or empty
    std::uint64_t stored_bytes = 0;
  };
  std::vector<Mapping> mappings;

  struct Descriptor {
    int number = 0;
    std::string kind;    ///< "file", "directory", "device", "pipe", "eventfd", "external"
    std::string detail;  ///< path, or what it is
    bool close_on_exec = false;
  };
  std::vector<Descriptor> descriptors;

  struct File {
    std::string path;
    std::uint64_t size_bytes = 0;
    std::string build_id;  ///< hex, empty where the file has none
  };
  std::vector<File> files;  ///< every file that a restore depends on

  struct Gpu {
    struct Device {
      std::string uuid;  ///< as nvidia-smi prints it: "GPU-…"
      std::string name;
      std::string compute_capability;  ///< "9.0"
      std::uint64_t memory_bytes = 0;
    };
    /// Of a program with libicecore_guest.
    struct Buffer {
      std::uint64_t address = 0;  ///< of the device
      std::uint64_t size_bytes = 0;
      std::string device;    ///< its UUID
      std::string contents;  ///< "keep", "drop", "file"
      std::string digest;    ///< hex; empty with "drop"
      std::string file;      ///< the path; empty but with "file"
      std::uint64_t file_offset = 0;
    };
    std::string driver;             ///< "580.82.07", or empty
    std::string cuda;               ///< "13.0": what the driver supports
    std::string state;              ///< in which a restore leaves it: "running", "locked", …
    std::uint64_t saved_bytes = 0;  ///< of device memory, within the stored pages
    std::vector<Device> devices;    ///< all that the driver saw
    std::vector<Buffer> buffers;    ///< that are not in saved_bytes
  };
  std::optional<Gpu> gpu;  ///< of a process that uses CUDA

  /// Pages that the next lazy restore has in place before the process runs (IMAGE.ws); 0: none.
  std::uint64_t working_set_pages = 0;
  std::uint64_t working_set_file_pages = 0;  ///< of mapped files
  std::string working_set_problem;  ///< why there is one that cannot be used; empty: no such
};

/// One thing that a restore needs, held against this machine.
struct Finding {
  bool ok = true;
  std::string subject;     ///< "cpu", "file /usr/lib/…", "pid 812", "fd 7" …
  std::string reason;      ///< what differs; empty when ok
  std::string remedy;      ///< what to do about it; empty when there is none, or ok
  bool transient = false;  ///< some process has a process id, port or name at the moment
};

struct RestoreOptions;
struct Host;

/// An image file, opened and verified so far that everything but its pages may be used.
///
/// Cheap to copy; may be used from several threads at once.  Holds the file open: renaming or
/// deleting it does no harm, truncating or overwriting it in place does.
class ICECORE_EXPORT Image {
 public:
  /// Opens `path` and checks everything but the pages.  Throws Errc::corrupt_image when it is
  /// damaged or no image, Errc::incompatible for a newer major version, Errc::io otherwise.
  static Image open(const std::filesystem::path& path);

  ImageInfo info() const;

  /// Of all that info() says only these: for whoever looks at them at each restore.
  std::vector<ImageInfo::Descriptor> descriptors() const;

  /// 32 hexadecimal digits that no other image has.
  std::string identity() const;

  /// Reads every page and holds it against its digest.  Throws Errc::corrupt_image naming the
  /// first page or frame that differs.  Returns the number of stored pages.
  std::uint64_t verify(const ProgressCallback& progress = {}, std::stop_token stop = {}) const;

  /// Holds what the image needs against this machine, without touching anything.
  std::vector<Finding> check() const;
  std::vector<Finding> check(const RestoreOptions& options) const;

  /// Holds what the image needs of a machine against one that may be elsewhere.  Files, process ids
  /// and descriptors are not looked at.
  std::vector<Finding> check(const Host& host) const;

  /// Writes a plain ELF core file, mode 0600, whole or not at all.  For a raw image that is a copy.
  void write_core(const std::filesystem::path& core, const ProgressCallback& progress = {},
                  std::stop_token stop = {}) const;

  /// The library's own view; not part of the stable interface.
  struct Data;
  const Data& data() const noexcept { return *data_; }

 private:
  explicit Image(std::shared_ptr<const Data> data);
  std::shared_ptr<const Data> data_;
};

}  // namespace icecore
