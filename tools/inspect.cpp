// SPDX-License-Identifier: Apache-2.0
//
// icecore inspect: what an image holds.
#include <fmt/format.h>
#include <icecore/image.hpp>

#include <string>
#include <string_view>

#include "command.hpp"
#include "format.hpp"
#include "json/json.hpp"

namespace icecore::tool {
namespace {

std::string_view name_of(Encoding encoding) {
  switch (encoding) {
    case Encoding::raw:
      return "raw";
    case Encoding::zstd:
      return "zstd";
  }
  return "unknown";
}

std::string joined(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) line += (line.empty() ? "" : " ") + word;
  return printable(line);
}

void print_process(const ImageInfo& info) {
  fmt::print("format       {}.{}, {}\n", info.major_version, info.minor_version,
             name_of(info.encoding));
  fmt::print("size         {}, {} pages stored\n", human_size(info.image_bytes), info.stored_pages);
  if (info.working_set_pages != 0)
    fmt::print("working set  {} pages, {}; and {} of mapped files\n", info.working_set_pages,
               human_size(info.working_set_pages * 4096),
               human_size(info.working_set_file_pages * 4096));
  else
    fmt::print("working set  none{}\n", info.working_set_problem.empty()
                                            ? ""
                                            : " (" + printable(info.working_set_problem) + ")");
  fmt::print("process      {} {}\n", info.pid, printable(info.name));
  fmt::print("executable   {}\n", printable(info.executable));
  fmt::print("arguments    {}\n", joined(info.arguments));
  fmt::print("directory    {}\n", printable(info.working_directory));
  fmt::print("kernel       {}\n", printable(info.kernel_release));
}

void print_gpus(const ImageInfo& info) {
  if (!info.gpu) return;
  const ImageInfo::Gpu& gpu = *info.gpu;
  fmt::print("\n{} GPUs, driver {} (CUDA {}); {} of their memory; comes back {}\n",
             gpu.devices.size(), gpu.driver.empty() ? "unknown" : printable(gpu.driver), gpu.cuda,
             human_size(gpu.saved_bytes), gpu.state);
  for (const ImageInfo::Gpu::Device& device : gpu.devices)
    fmt::print("  {} {} ({}, compute capability {})\n", device.uuid, printable(device.name),
               human_size(device.memory_bytes), device.compute_capability);
  for (const ImageInfo::Gpu::Buffer& buffer : gpu.buffers) {
    const std::string file =
        buffer.file.empty()
            ? std::string{}
            : fmt::format(" of {} at {:#x}", printable(buffer.file), buffer.file_offset);
    fmt::print("  buffer {:012x} {:>12} {}{}\n", buffer.address, human_size(buffer.size_bytes),
               buffer.contents, file);
  }
}

void print_threads(const ImageInfo& info) {
  fmt::print("\n{} threads\n", info.threads.size());
  for (const ImageInfo::Thread& thread : info.threads)
    fmt::print("{:>9}  {:<16} {}\n", thread.tid, printable(thread.name),
               thread.blocked_in.empty() ? "running" : "in " + printable(thread.blocked_in));
}

void print_mappings(const ImageInfo& info) {
  fmt::print("\n{} mappings\n", info.mappings.size());
  for (const ImageInfo::Mapping& mapping : info.mappings)
    fmt::print("  {:012x}-{:012x} {} {:>12} stored {:>10x} {}\n", mapping.start, mapping.end,
               printable(mapping.protection),
               mapping.stored_bytes == 0 ? "nothing" : human_size(mapping.stored_bytes),
               mapping.offset, printable(mapping.name));
}

void print_descriptors(const ImageInfo& info) {
  fmt::print("\n{} descriptors\n", info.descriptors.size());
  for (const ImageInfo::Descriptor& descriptor : info.descriptors)
    fmt::print("{:>9}  {:<10} {}{}\n", descriptor.number, printable(descriptor.kind),
               printable(descriptor.detail), descriptor.close_on_exec ? " (close-on-exec)" : "");
}

void print_files(const ImageInfo& info) {
  fmt::print("\n{} files that a restore needs unchanged\n", info.files.size());
  for (const ImageInfo::File& file : info.files)
    fmt::print("  {} ({}{}{})\n", printable(file.path), human_size(file.size_bytes),
               file.build_id.empty() ? "" : ", build id ", printable(file.build_id));
}

std::string address(std::uint64_t value) { return fmt::format("{:#x}", value); }

JsonObject describe_thread(const ImageInfo::Thread& thread) {
  JsonObject object;
  object.add("tid", thread.tid).add("name", thread.name).add("blocked_in", thread.blocked_in);
  return object;
}

JsonObject describe_mapping(const ImageInfo::Mapping& mapping) {
  JsonObject object;
  object.add("start", address(mapping.start))
      .add("end", address(mapping.end))
      .add("protection", mapping.protection)
      .add("offset_bytes", mapping.offset)
      .add("name", mapping.name)
      .add("stored_bytes", mapping.stored_bytes);
  return object;
}

JsonObject describe_descriptor(const ImageInfo::Descriptor& descriptor) {
  JsonObject object;
  object.add("number", descriptor.number)
      .add("kind", descriptor.kind)
      .add("detail", descriptor.detail)
      .add("close_on_exec", descriptor.close_on_exec);
  return object;
}

JsonObject describe_file(const ImageInfo::File& file) {
  JsonObject object;
  object.add("path", file.path).add("size_bytes", file.size_bytes).add("build_id", file.build_id);
  return object;
}

JsonObject describe_gpu(const ImageInfo::Gpu::Device& device) {
  JsonObject object;
  object.add("uuid", device.uuid)
      .add("name", device.name)
      .add("compute_capability", device.compute_capability)
      .add("memory_bytes", device.memory_bytes);
  return object;
}

JsonObject describe_buffer(const ImageInfo::Gpu::Buffer& buffer) {
  JsonObject object;
  object.add("address", address(buffer.address))
      .add("size_bytes", buffer.size_bytes)
      .add("device", buffer.device)
      .add("contents", buffer.contents)
      .add("digest", buffer.digest)
      .add("file", buffer.file)
      .add("file_offset_bytes", buffer.file_offset);
  return object;
}

JsonObject describe(const ImageInfo& info) {
  JsonObject object;
  object.add("major_version", info.major_version)
      .add("minor_version", info.minor_version)
      .add("encoding", name_of(info.encoding))
      .add("image_bytes", info.image_bytes)
      .add("stored_pages", info.stored_pages)
      .add("working_set_pages", info.working_set_pages)
      .add("working_set_file_pages", info.working_set_file_pages)
      .add("working_set_problem", info.working_set_problem)
      .add("pid", info.pid)
      .add("name", info.name)
      .add("executable", info.executable)
      .add("arguments", info.arguments)
      .add("working_directory", info.working_directory)
      .add("kernel_release", info.kernel_release)
      .add("threads", info.threads, describe_thread)
      .add("mappings", info.mappings, describe_mapping)
      .add("descriptors", info.descriptors, describe_descriptor)
      .add("files", info.files, describe_file);
  const ImageInfo::Gpu gpu = info.gpu.value_or(ImageInfo::Gpu{});
  object.add("gpu_state", info.gpu ? gpu.state : "none")
      .add("gpu_driver", gpu.driver)
      .add("gpu_cuda", gpu.cuda)
      .add("gpu_saved_bytes", gpu.saved_bytes)
      .add("gpus", gpu.devices, describe_gpu)
      .add("gpu_buffers", gpu.buffers, describe_buffer);
  return object;
}

class Inspect final : public Invocation {
 public:
  explicit Inspect(CLI::App& app) {
    app.add_option("IMAGE", image_, "The image")->option_text(" ")->required();
    add_json_option(app);
  }

  int run() override {
    const ImageInfo info = Image::open(image_).info();
    if (json) {
      fmt::print(json_stream, "{}\n", describe(info).text());
      return 0;
    }
    print_process(info);
    print_gpus(info);
    print_threads(info);
    print_mappings(info);
    print_descriptors(info);
    print_files(info);
    return 0;
  }

 private:
  std::string image_;
};

}  // namespace

const Command kInspect{
    .name = "inspect",
    .summary = "Show what an image holds",
    .failure_status = 1,
    .declare = declare<Inspect>,
};

}  // namespace icecore::tool
