// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "icecore/store.hpp"
#include "json/json.hpp"

namespace icecore {

/// What an image is and what it was made of, as the store keeps it and as scripts see it.
inline JsonObject& add_origin(JsonObject& object, const StoreEntry& entry) {
  return object.add("key", entry.key)
      .add("image_identity", entry.image_identity)
      .add("image_bytes", entry.image_bytes)
      .add("made_at_s", entry.made_at.time_since_epoch().count())
      .add("made_by", entry.made_by)
      .add("made_on", entry.made_on)
      .add("worker_type", entry.worker_type)
      .add("command", entry.started.command)
      .add("working_directory", entry.started.working_directory)
      .add("variables", entry.started.variables)
      .add("cpu_baseline", entry.started.cpu_baseline)
      .add("dependencies", entry.started.dependencies, [&](const Dependency& dependency) {
        JsonObject described{object.not_utf8()};
        described.add("path", dependency.path)
            .add("digest", dependency.digest)
            .add("signature", dependency.signature);
        return described;
      });
}

}  // namespace icecore
