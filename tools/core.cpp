// SPDX-License-Identifier: Apache-2.0
//
// icecore core: a plain core file of any image, for a debugger.
#include <icecore/image.hpp>

#include "command.hpp"
#include "progress_line.hpp"
#include "signals.hpp"

namespace icecore::tool {
namespace {

class Core final : public Invocation {
 public:
  explicit Core(CLI::App& app) {
    app.add_option("IMAGE", image_, "The image")->option_text(" ")->required();
    app.add_option("-o,--output", core_, "The file to write; replaced if it exists")
        ->option_text("CORE")
        ->required();
  }

  int run() override {
    const StopOnSignal stop{stop_signal};
    ProgressLine progress;
    Image::open(image_).write_core(core_, progress.callback(), stop.token());
    return 0;
  }

 private:
  std::string image_;
  std::string core_;
};

}  // namespace

const Command kCore{
    .name = "core",
    .summary = "Write a core file that any debugger opens",
    .failure_status = 1,
    .declare = declare<Core>,
};

}  // namespace icecore::tool
