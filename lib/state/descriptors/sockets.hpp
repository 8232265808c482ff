// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the rooms of sockets have in common.

#include "state/descriptors/room.hpp"
#include "state/refusals.hpp"
#include "sys/sock_diag.hpp"
#include "sys/socket.hpp"

namespace icecore {

/// Options that differ from those of a new socket.  Throws for what cannot be read.
std::vector<std::unique_ptr<state::SocketOptionT>> capture_socket_options(
    const sys::Fd& socket, const sys::SocketKind& kind);

/// Those that belong before bind(2), or those that only matter once data is there.
void rebuild_socket_options(const sys::Fd& socket, const state::SocketObjectT& object, bool late);

/// Index of the socket with this inode in the image, whether or not its turn has come.
std::int32_t socket_index(DescriptorCapture& all, std::uint64_t inode);

/// What all kinds of sockets note: kind, owner, name, options.  Its place in the image.
std::int32_t capture_socket(DescriptorCapture& all, const OpenDescription& open,
                            const sys::SocketKind& kind);

/// A new socket of the same kind, owner and options, without a name.
sys::Fd make_socket_for(const state::SocketObjectT& object);

/// Of the process and of unix(7), with something that waits in it.
bool may_hold_descriptors(const DescriptorCapture& all, const FoundDescriptor& found);

/// For descriptions of sockets: all are made when the first is asked for.
sys::Fd rebuild_socket(DescriptorRebuild& all, const state::DescriptionT& description, int number);

void rebuild_unix_sockets(DescriptorRebuild& all);
/// Once there is a descriptor for every description: what waits in them, and what follows.
void fill_sockets(DescriptorRebuild& all, const std::vector<sys::Fd>& descriptions);
void rebuild_inet_socket(DescriptorRebuild& all, std::size_t index);
/// Connections of the process with itself; before any other socket takes its name.
void rebuild_tcp_connections(DescriptorRebuild& all);
/// What waits in one, once every socket has its name.
void fill_tcp_connection(DescriptorRebuild& all, std::size_t index);

/// True when the process is to find it reset.
bool is_found_reset(const state::SocketObjectT& object, const RestoreOptions& options);

/// Takes back what let sockets share names while they were made, once all listen that did.
void settle_sockets(const state::DescriptorsT& image, const std::vector<sys::Fd>& descriptions);

/// Lets TCP connections with others go on, which their peers see.
void release_tcp_connections(const state::DescriptorsT& image,
                             const std::vector<sys::Fd>& descriptions,
                             const RestoreOptions& options);

/// Reasons why a socket could not have its name here.
/// `folder`: the working directory.
void check_unix_socket(const state::SocketObjectT& object, const std::string& folder,
                       const std::string& who, Refusals& refusals);
void check_inet_socket(const state::SocketObjectT& object, const RestoreOptions& options,
                       const std::string& who, Refusals& refusals);

inline state::SocketObjectT& object_at(DescriptorCapture& all, std::int32_t index) {
  return *all.sockets[static_cast<std::size_t>(index)];
}

inline const state::SocketObjectT& object_of(const state::DescriptorsT& image,
                                             const state::DescriptionT& description) {
  return *image.sockets[static_cast<std::size_t>(description.open.AsSocket()->socket)];
}

}  // namespace icecore
