// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the rooms of descriptors/ have in common: one room per kind, chosen by the table in
// descriptors.cpp.

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "icecore/restore.hpp"
#include "image/state_generated.h"
#include "state/capture.hpp"
#include "sys/files.hpp"

namespace icecore {

/// One open file description of the process, by one of its descriptors.
struct OpenDescription {
  int number;           ///< lowest descriptor that leads to it
  std::string link;     ///< what /proc/PID/fd/N leads to
  const sys::Fd& copy;  ///< ours, of the same description
  sys::FileStatus status;
  int flags;  ///< F_GETFL
  sys::DescriptorInfo info;
};

/// What all descriptors of a process have in common while they are captured.
struct DescriptorCapture {
  Capture& capture;
  std::vector<std::unique_ptr<state::PipeObjectT>> pipes = {};
  std::map<std::uint64_t, std::int32_t> pipe_index = {};  ///< by inode
  std::set<std::uint64_t> readable_pipes = {};            ///< inodes with a read end in the process
  std::set<std::uint64_t> writable_pipes = {};
};

/// What all descriptors have in common while they are rebuilt, in our own process.
struct DescriptorRebuild {
  const state::ProcessT& process;
  const RestoreOptions& options;
  const std::string& root;  ///< stands before every path: "" or the root of another namespace
  std::map<std::int32_t, sys::Pipe> pipes = {};             ///< by index, both ends
  std::set<std::pair<std::int32_t, bool>> given_ends = {};  ///< index, write end: handed out once
};

struct DescriptorRoom {
  /// True when this kind is its own.
  bool (*matches)(const DescriptorCapture&, const OpenDescription&);
  /// Throws Errc::unsupported when this one cannot be kept.
  state::OpenUnion (*capture)(DescriptorCapture&, const OpenDescription&);
  state::Open kind;
  /// A descriptor of ours for an equal description.  Empty: the process finds it closed.
  sys::Fd (*rebuild)(DescriptorRebuild&, const state::DescriptionT&, int number);
};

/// Wraps a table of the schema.
template <class Table>
state::OpenUnion opened(Table table) {
  state::OpenUnion open;
  open.Set(std::move(table));
  return open;
}

extern const DescriptorRoom regular_file_room;
extern const DescriptorRoom directory_room;
extern const DescriptorRoom device_room;
extern const DescriptorRoom pipe_room;
extern const DescriptorRoom eventfd_room;
extern const DescriptorRoom external_room;

}  // namespace icecore
