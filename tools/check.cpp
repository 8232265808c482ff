// SPDX-License-Identifier: Apache-2.0
//
// icecore check: would this image come back here, now?
#include <fmt/format.h>
#include <icecore/image.hpp>

#include <algorithm>
#include <vector>

#include "command.hpp"
#include "host_file.hpp"
#include "json/json.hpp"
#include "restore_options.hpp"

namespace icecore::tool {
namespace {

void print(const Finding& finding) {
  if (finding.ok) {
    fmt::print("ok  {}\n", finding.subject);
    return;
  }
  fmt::print("no  {}: {}\n", finding.subject, finding.reason);
  if (!finding.remedy.empty()) fmt::print("    remedy: {}\n", finding.remedy);
}

JsonObject describe_finding(const Finding& finding) {
  JsonObject object;
  object.add("ok", finding.ok)
      .add("subject", finding.subject)
      .add("reason", finding.reason)
      .add("remedy", finding.remedy)
      .add("transient", finding.transient);
  return object;
}

class Check final : public Invocation {
 public:
  explicit Check(CLI::App& app) : choices_(app) {
    app.add_option("IMAGE", image_, "The image")->option_text(" ")->required();
    app.add_option("--host", host_,
                   "Not for this machine but for the one described in a file that `icecore host` "
                   "has written; files and process ids are not looked at then")
        ->option_text("FILE");
    add_tcp_option(app, tcp_,
                   "What becomes of established TCP connections of the image: refused (the "
                   "default), found reset (close), or they go on (established)");
    add_json_option(app);
  }

  int run() override {
    const std::vector<Finding> findings = find();
    const bool restorable = std::ranges::all_of(findings, &Finding::ok);
    if (json) {
      JsonObject object;
      object.add("image", image_)
          .add("restorable", restorable)
          .add("findings", findings, describe_finding);
      fmt::print(json_stream, "{}\n", object.text());
    } else {
      for (const Finding& finding : findings) print(finding);
    }
    return restorable ? 0 : 1;
  }

 private:
  std::vector<Finding> find() const {
    const Image image = Image::open(image_);
    RestoreOptions options = choices_.options();
    options.tcp = tcp_;
    return host_.empty() ? image.check(options) : image.check(read_host_file(host_));
  }

  RestoreChoices choices_;
  std::string host_;
  std::string image_;
  TcpConnections tcp_ = TcpConnections::refuse;
};

}  // namespace

const Command kCheck{
    .name = "check",
    .summary = "Say whether an image can be restored here, and if not, why",
    .failure_status = 1,
    .declare = declare<Check>,
};

}  // namespace icecore::tool
