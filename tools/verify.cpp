// SPDX-License-Identifier: Apache-2.0
//
// icecore verify: reads every stored byte and holds it against its digest.
#include <fmt/format.h>
#include <icecore/image.hpp>

#include "command.hpp"
#include "json/json.hpp"
#include "progress_line.hpp"
#include "signals.hpp"

namespace icecore::tool {
namespace {

class Verify final : public Invocation {
 public:
  explicit Verify(CLI::App& app) {
    app.add_option("IMAGE", image_, "The image")->option_text(" ")->required();
    add_json_option(app);
  }

  int run() override {
    const std::uint64_t pages = verified_pages();
    if (json) {
      JsonObject object;
      object.add("image", image_).add("verified_pages", pages);
      fmt::print(json_stream, "{}\n", object.text());
    } else {
      fmt::print("{}: {} pages, all as they were written\n", image_, pages);
    }
    return 0;
  }

 private:
  std::uint64_t verified_pages() {
    const StopOnSignal stop{stop_signal};
    ProgressLine progress;
    return Image::open(image_).verify(progress.callback(), stop.token());
  }

  std::string image_;
};

}  // namespace

const Command kVerify{
    .name = "verify",
    .summary = "Read every byte of an image and check its digests",
    .failure_status = 1,
    .declare = declare<Verify>,
};

}  // namespace icecore::tool
