// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "support/descriptor.hpp"
#include "support/patience.hpp"
#include "support/process.hpp"

namespace test {

/// Lines to and from a process, through pipes that are its standard input and output.
class Conversation {
 public:
  /// The ends that the process gets; close them with begin() once it has them.
  Streams streams() const { return {its_input_.get(), its_output_.get(), 2}; }
  void begin();

  /// The answer, without the line's end.  Throws when none comes in time, or no more can come.
  std::string ask(std::string_view question, std::chrono::milliseconds patience = kPatience);

  void tell(std::string_view line);
  std::string hear(std::chrono::milliseconds patience = kPatience);

  /// True when the process has read all that it was told.
  bool all_read() const;
  /// A line that has come, if any; also after the process has ended.
  std::optional<std::string> heard();

  /// Ends its standard input.
  void hang_up() { to_ = Descriptor{}; }

  /// Readable when there is something to hear.
  int from() const { return from_.get(); }

 private:
  Conversation(Pipe to, Pipe from);
  friend Conversation make_conversation();

  Descriptor its_input_, its_output_;
  Descriptor to_, from_;
  std::string unread_;
};

Conversation make_conversation();

}  // namespace test
