// SPDX-License-Identifier: Apache-2.0
//
// examples/runtime.cpp: answers HTTP requests from prepared processes.
#include <catch2/catch.hpp>
#include <icecore/snapshot.hpp>

#include "support/conversation.hpp"
#include "support/local_port.hpp"
#include "support/target.hpp"
#include "support/temporary_folder.hpp"

namespace test::runtime_example_test {

/// The example, with an image of the target "function".
class Runtime {
 public:
  explicit Runtime(const std::string& image)
      : process_(Process::start({ICECORE_EXAMPLE_RUNTIME, image, "0", "2"}, talk_.streams())) {
    talk_.begin();
    const std::string where = talk_.hear();
    port_ = std::stoi(where.substr(where.rfind(':') + 1));
  }

  std::string get(const std::string& path) const { return answer(http_get(path)); }
  std::string answer(const std::string& request) const {
    return talk(port_, request).value_or("nobody listens");
  }
  bool runs() const { return !process_.ended(); }

 private:
  Conversation talk_ = make_conversation();
  Process process_;
  int port_ = 0;
};

void expect(const std::string& answer, const std::string& status, const std::string& body) {
  INFO(answer);
  CHECK(answer.starts_with("HTTP/1.1 " + status));
  CHECK(answer.ends_with("\r\n\r\n" + body));
}

TEST_CASE("the example runtime answers each request from a process of its own") {
  TemporaryFolder folder;
  Target target{"function"};
  const std::string secret = target.ask("secret?");
  CHECK(target.ask("/count") == "1");
  icecore::snapshot(target.pid(), folder / "image", {.fsync = false});

  const Runtime runtime{folder / "image"};
  for (int i = 0; i < 5; ++i) {
    expect(runtime.get("/secret"), "200 ", secret);
    expect(runtime.get("/count"), "200 ", "2");  // nobody has been asked before
  }
  expect(runtime.get("/crash"), "502 ", "");
  expect(runtime.answer("nonsense\r\n\r\n"), "400 ", "");
  expect(runtime.get("/secret"), "200 ", secret);
  CHECK(runtime.runs());
  CHECK(target.ask("ping") == "pong");
}

}  // namespace test::runtime_example_test
