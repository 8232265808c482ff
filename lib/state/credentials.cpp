// SPDX-License-Identifier: Apache-2.0
#include "state/credentials.hpp"

#include <fmt/format.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/securebits.h>
#include <sys/prctl.h>

#include <algorithm>
#include <array>
#include <bit>
#include <string>

#include "sys/process.hpp"
#include "sys/procfs.hpp"

namespace icecore {
namespace {

constexpr std::array kCapabilityNames{"CAP_CHOWN",
                                      "CAP_DAC_OVERRIDE",
                                      "CAP_DAC_READ_SEARCH",
                                      "CAP_FOWNER",
                                      "CAP_FSETID",
                                      "CAP_KILL",
                                      "CAP_SETGID",
                                      "CAP_SETUID",
                                      "CAP_SETPCAP",
                                      "CAP_LINUX_IMMUTABLE",
                                      "CAP_NET_BIND_SERVICE",
                                      "CAP_NET_BROADCAST",
                                      "CAP_NET_ADMIN",
                                      "CAP_NET_RAW",
                                      "CAP_IPC_LOCK",
                                      "CAP_IPC_OWNER",
                                      "CAP_SYS_MODULE",
                                      "CAP_SYS_RAWIO",
                                      "CAP_SYS_CHROOT",
                                      "CAP_SYS_PTRACE",
                                      "CAP_SYS_PACCT",
                                      "CAP_SYS_ADMIN",
                                      "CAP_SYS_BOOT",
                                      "CAP_SYS_NICE",
                                      "CAP_SYS_RESOURCE",
                                      "CAP_SYS_TIME",
                                      "CAP_SYS_TTY_CONFIG",
                                      "CAP_MKNOD",
                                      "CAP_LEASE",
                                      "CAP_AUDIT_WRITE",
                                      "CAP_AUDIT_CONTROL",
                                      "CAP_SETFCAP",
                                      "CAP_MAC_OVERRIDE",
                                      "CAP_MAC_ADMIN",
                                      "CAP_SYSLOG",
                                      "CAP_WAKE_ALARM",
                                      "CAP_BLOCK_SUSPEND",
                                      "CAP_AUDIT_READ",
                                      "CAP_PERFMON",
                                      "CAP_BPF",
                                      "CAP_CHECKPOINT_RESTORE"};

constexpr std::uint64_t bit(int capability) { return std::uint64_t{1} << capability; }

/// "CAP_KILL, CAP_MKNOD"
std::string names_of(std::uint64_t capabilities) {
  std::string names;
  for (std::size_t i = 0; i < 64; ++i) {
    if ((capabilities >> i & 1) == 0) continue;
    if (!names.empty()) names += ", ";
    names += i < kCapabilityNames.size() ? kCapabilityNames[i] : fmt::format("capability {}", i);
  }
  return names;
}

std::vector<std::uint32_t> ids(const sys::Status& status, std::string_view field) {
  std::vector<std::uint32_t> ids;
  for (const std::uint64_t id : status.numbers(field))
    ids.push_back(static_cast<std::uint32_t>(id));
  return ids;
}

state::CredentialsT credentials_in(const sys::Status& status) {
  state::CredentialsT credentials;
  credentials.users = ids(status, "Uid");
  credentials.groups = ids(status, "Gid");
  credentials.other_groups = ids(status, "Groups");
  credentials.inheritable = status.number("CapInh", 16);
  credentials.permitted = status.number("CapPrm", 16);
  credentials.effective = status.number("CapEff", 16);
  credentials.bounding = status.number("CapBnd", 16);
  credentials.ambient = status.number("CapAmb", 16);
  credentials.no_new_privileges = status.number("NoNewPrivs") != 0;
  return credentials;
}

bool same_ids(const state::CredentialsT& a, const state::CredentialsT& b) {
  return a.users == b.users && a.groups == b.groups && a.other_groups == b.other_groups;
}

bool same_sets(const state::CredentialsT& a, const state::CredentialsT& b) {
  return a.inheritable == b.inheritable && a.permitted == b.permitted && a.effective == b.effective;
}

bool same(const state::CredentialsT& a, const state::CredentialsT& b) {
  return same_ids(a, b) && same_sets(a, b) && a.bounding == b.bounding && a.ambient == b.ambient &&
         a.secure_bits == b.secure_bits && a.no_new_privileges == b.no_new_privileges;
}

/// As capset(2) wants them.
struct CapabilitySets {
  struct Half {
    std::uint32_t effective, permitted, inheritable;
  } halves[2];
};
constexpr std::array<std::uint32_t, 2> kCapabilityHeader{0x20080522, 0};  // version 3, ourselves

void set_capabilities(CallList& list, std::uint64_t effective, std::uint64_t permitted,
                      std::uint64_t inheritable) {
  CapabilitySets sets;
  for (int half = 0; half < 2; ++half)
    sets.halves[half] = {static_cast<std::uint32_t>(effective >> 32 * half),
                         static_cast<std::uint32_t>(permitted >> 32 * half),
                         static_cast<std::uint32_t>(inheritable >> 32 * half)};
  list.call("set the capabilities", SYS_capset,
            {list.put_value(kCapabilityHeader), list.put_value(sets)});
}

void set_secure_bits(CallList& list, std::uint32_t bits) {
  list.call("set the secure bits", SYS_prctl, {PR_SET_SECUREBITS, bits, 0, 0, 0});
}

void set_ids(const state::CredentialsT& wanted, CallList& list) {
  // So that the capabilities stay as they are while the ids change.
  set_secure_bits(list, SECBIT_NO_SETUID_FIXUP);
  list.call("set the groups", SYS_setgroups,
            {wanted.other_groups.size(), list.put(std::as_bytes(std::span{wanted.other_groups}))});
  list.call("set the group ids", SYS_setresgid,
            {wanted.groups[0], wanted.groups[1], wanted.groups[2]});
  list.call("set the group id for files", SYS_setfsgid, {wanted.groups[3]});
  list.call("set the user ids", SYS_setresuid, {wanted.users[0], wanted.users[1], wanted.users[2]});
  list.call("set the user id for files", SYS_setfsuid, {wanted.users[3]});
}

/// Raising one needs it permitted and inheritable, and the others stay as long as they are.
std::uint64_t ambient_kept(const state::CredentialsT& wanted, const state::CredentialsT& ours) {
  return ours.ambient & wanted.permitted & wanted.inheritable;
}

}  // namespace

CredentialQuestions::CredentialQuestions(CallList& list) {
  secure_bits_ = list.call("read the secure bits", SYS_prctl, {PR_GET_SECUREBITS});
  // Asking for a keyring that is not there makes none.
  const auto keyring = [&](std::int32_t which) {
    return list.try_call(SYS_keyctl, {KEYCTL_GET_KEYRING_ID, static_cast<std::uint64_t>(which), 0});
  };
  thread_keyring_ = keyring(KEY_SPEC_THREAD_KEYRING);
  process_keyring_ = keyring(KEY_SPEC_PROCESS_KEYRING);
}

std::int32_t CredentialQuestions::answers(const CallList& list, Capture& capture,
                                          const Tracee& thread, const sys::Status& status,
                                          state::ProcessT& process) const {
  if (list.result(thread_keyring_) > 0)
    capture.refusals.add("thread {}: has a keyring of its own (keyctl): cannot be kept",
                         thread.tid());
  if (list.result(process_keyring_) > 0 && thread.tid() == capture.pid)
    capture.refusals.add("process {}: has a process keyring (keyctl): cannot be kept", capture.pid);
  state::CredentialsT credentials = credentials_in(status);
  credentials.secure_bits = static_cast<std::uint32_t>(list.result(secure_bits_));
  const auto known = std::ranges::find_if(
      process.credentials, [&](const auto& other) { return same(*other, credentials); });
  const auto index = known - process.credentials.begin();
  if (known == process.credentials.end())
    process.credentials.push_back(std::make_unique<state::CredentialsT>(std::move(credentials)));
  return static_cast<std::int32_t>(index);
}

state::CredentialsT credentials_of_stub(pid_t pid) {
  const auto status = sys::Status::read(pid);
  if (!status) throw Error{Errc::target_gone, fmt::format("process {} has ended", pid)};
  state::CredentialsT credentials = credentials_in(*status);
  // Inherited, but for this one.
  credentials.secure_bits = sys::secure_bits() & ~static_cast<std::uint32_t>(SECBIT_KEEP_CAPS);
  return credentials;
}

std::size_t rebuild_credential_calls(const state::CredentialsT& wanted) {
  constexpr std::size_t kOthers = 12;
  return kOthers + 64 + static_cast<std::size_t>(std::popcount(wanted.ambient));
}

std::size_t rebuild_credential_bytes(const state::CredentialsT& wanted) {
  return rebuild_credential_calls(wanted) * sizeof(RemoteCall) + wanted.other_groups.size() * 4 +
         160;
}

void become(const state::CredentialsT& wanted, const state::CredentialsT& ours, CallList& list) {
  for (std::uint64_t lost = ours.bounding & ~wanted.bounding; lost != 0; lost &= lost - 1)
    list.call("drop a capability from the bounding set", SYS_prctl,
              {PR_CAPBSET_DROP, static_cast<std::uint64_t>(std::countr_zero(lost)), 0, 0, 0});
  const bool other_ids = !same_ids(wanted, ours);
  if (other_ids) set_ids(wanted, list);
  if (wanted.inheritable != ours.inheritable)
    set_capabilities(list, ours.effective, ours.permitted, wanted.inheritable);
  if (wanted.ambient != ambient_kept(wanted, ours)) {
    list.call("clear the ambient capabilities", SYS_prctl,
              {PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0});
    for (std::uint64_t left = wanted.ambient; left != 0; left &= left - 1)
      list.call("raise an ambient capability", SYS_prctl,
                {PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE,
                 static_cast<std::uint64_t>(std::countr_zero(left)), 0, 0});
  }
  if (other_ids || wanted.secure_bits != ours.secure_bits)
    set_secure_bits(list, wanted.secure_bits);
}

void give_up(const state::CredentialsT& wanted, const state::CredentialsT& ours, CallList& list) {
  if (wanted.no_new_privileges && !ours.no_new_privileges)
    list.call("set no_new_privs", SYS_prctl, {PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0});
  if (!same_sets(wanted, ours))
    set_capabilities(list, wanted.effective, wanted.permitted, wanted.inheritable);
}

void refuse_lacking_credentials(const state::ProcessT& process, const sys::Status& own,
                                Refusals& refusals) {
  state::CredentialsT ours = credentials_in(own);
  ours.secure_bits = sys::secure_bits();
  // A program that is started by somebody else than root has none but the ambient capabilities.
  if (ours.users[1] != 0 || (ours.secure_bits & SECBIT_NOROOT) != 0)
    ours.permitted = ours.effective = ours.ambient;
  const auto require = [&](int capability, const char* what) {
    if ((ours.effective & bit(capability)) == 0)
      refusals.add("credentials: {}: icecore needs {}", what, names_of(bit(capability)));
  };
  const auto refuse_extra = [&](std::uint64_t theirs, std::uint64_t allowed, const char* set) {
    if (const std::uint64_t extra = theirs & ~allowed; extra != 0)
      refusals.add(
          "capabilities: the process had {} ({}), icecore has not: a restore gives nothing that "
          "its caller does not have",
          names_of(extra), set);
  };
  for (const auto& wanted : process.credentials) {
    if (wanted->users != ours.users) require(CAP_SETUID, "the process had other user ids");
    if (wanted->groups != ours.groups || wanted->other_groups != ours.other_groups)
      require(CAP_SETGID, "the process had other groups");
    if (!same_ids(*wanted, ours) || wanted->secure_bits != ours.secure_bits ||
        (ours.bounding & ~wanted->bounding) != 0)
      require(CAP_SETPCAP, "the process had other ids, secure bits or a smaller bounding set");
    refuse_extra(wanted->permitted, ours.permitted, "permitted");
    refuse_extra(wanted->bounding, ours.bounding, "bounding set");
    refuse_extra(wanted->inheritable, ours.inheritable | ours.bounding, "inheritable");
    if (ours.no_new_privileges && !wanted->no_new_privileges)
      refusals.add("no_new_privs: icecore has it, the process had not, and it cannot be taken off");
  }
}

}  // namespace icecore
