// SPDX-License-Identifier: Apache-2.0
//
// State: the kinds named in the arguments: "FOLDER KIND…".  Each is something that must either come
// back or be refused by name, never be lost in silence.
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <atomic>
#include <csignal>
#include <fstream>

#include "memory.hpp"

using namespace target;

static std::string folder;
static std::function<void()> check = [] {};  // set by those that only the process itself can see

static void fork_child(bool ends_at_once) {
  const pid_t parent = ::getpid();
  const pid_t child = static_cast<pid_t>(must(::fork(), "fork"));
  if (child != 0) {
    siginfo_t info;
    if (ends_at_once)
      must(::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), "waitid");
    return;
  }
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  while (!ends_at_once && ::getppid() == parent) ::pause();
  std::_Exit(0);
}

static int client = -1;

static void connect_by_tcp() {
  const int listener = static_cast<int>(must(::socket(AF_INET, SOCK_STREAM, 0), "socket"));
  client = static_cast<int>(must(::socket(AF_INET, SOCK_STREAM, 0), "socket"));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const at = reinterpret_cast<sockaddr*>(&address);
  must(::bind(listener, at, size), "bind");
  must(::listen(listener, 1), "listen");
  must(::getsockname(listener, at, &size), "getsockname");
  must(::connect(client, at, size), "connect");
}

/// Lets everything through.
static void filter_socket() {
  const int socket = static_cast<int>(must(::socket(AF_INET, SOCK_DGRAM, 0), "socket"));
  const bpf_insn program[] = {
      {.code = BPF_ALU64 | BPF_MOV | BPF_K,
       .dst_reg = BPF_REG_0,
       .src_reg = 0,
       .off = 0,
       .imm = 0xffff},
      {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0}};
  bpf_attr load = {};
  load.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
  load.insn_cnt = std::size(program);
  load.insns = reinterpret_cast<std::uintptr_t>(program);
  load.license = reinterpret_cast<std::uintptr_t>("GPL");
  const int loaded =
      static_cast<int>(must(::syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load), "bpf"));
  must(::setsockopt(socket, SOL_SOCKET, SO_ATTACH_BPF, &loaded, sizeof loaded), "SO_ATTACH_BPF");
  must(::close(loaded), "close");
}

/// A connection of the process with itself, not accepted, over which something has been sent.
static void leave_bytes_unaccepted() {
  const int listener = static_cast<int>(must(::socket(AF_UNIX, SOCK_STREAM, 0), "socket"));
  const int waiting = static_cast<int>(must(::socket(AF_UNIX, SOCK_STREAM, 0), "socket"));
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  socklen_t size = sizeof name.sun_family;  // any
  auto* const at = reinterpret_cast<sockaddr*>(&name);
  must(::bind(listener, at, size), "bind");
  must(::listen(listener, 1), "listen");
  size = sizeof name;
  must(::getsockname(listener, at, &size), "getsockname");
  must(::connect(waiting, at, size), "connect");
  must(::send(waiting, "x", 1, 0), "send");
}

static void set_up_io_uring() {
  std::uint32_t parameters[30] = {};
  must(::syscall(SYS_io_uring_setup, 4, parameters), "io_uring_setup");
}

/// A pair of pseudo terminals of which the slave is open in a process that is no child.  That one
/// ends with this one, at the end of a pipe.
static void share_terminal() {
  const int master = static_cast<int>(must(::open("/dev/ptmx", O_RDWR | O_NOCTTY), "ptmx"));
  must(::grantpt(master), "grantpt");
  must(::unlockpt(master), "unlockpt");
  const std::string name = ::ptsname(master);
  int alive[2], ready[2];
  must(::pipe(alive), "pipe");
  must(::pipe(ready), "pipe");
  const auto child = must(::fork(), "fork");
  if (child == 0) {
    if (::fork() != 0) ::_exit(0);
    ::close(alive[1]);
    ::close(master);
    char byte = ::open(name.c_str(), O_RDWR | O_NOCTTY) >= 0 ? 'x' : '-';
    if (::write(ready[1], &byte, 1) == 1 && ::read(alive[0], &byte, 1) == 0) ::_exit(0);
    ::_exit(1);
  }
  must(::waitpid(static_cast<pid_t>(child), nullptr, 0), "waitpid");
  char byte = 0;
  must(::read(ready[0], &byte, 1), "read");
  require(byte == 'x', "the slave cannot be opened");
}

/// A thread that runs 32-bit code: it sets a byte, and then jumps to itself.
static void run_short_code() {
  void* const low = ::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE | PROT_EXEC,
                           MAP_SHARED | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  require(low != MAP_FAILED, "mmap");
  static struct __attribute__((packed)) {
    std::uint32_t address;
    std::uint16_t segment = 0x23;  // the 32-bit code segment of every program
  } place;
  place.address = static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(low));
  auto* const bytes = static_cast<unsigned char*>(low);
  volatile unsigned char* const there = bytes + 64;
  const std::uint32_t flag = place.address + 64;
  std::memcpy(bytes, "\xc6\x05", 2);  // mov byte [flag], 1
  std::memcpy(bytes + 2, &flag, sizeof flag);
  std::memcpy(bytes + 6, "\x01\xeb\xfe", 3);
  const auto jump = [] {
    __asm__ volatile("movl $0x2b, %%eax; movl %%eax, %%ds; ljmpl *%0" : : "m"(place) : "eax");
  };
  // Some virtual machines have no such segment.
  const pid_t first = static_cast<pid_t>(must(::fork(), "fork"));
  if (first == 0) jump();
  bool ended = false;
  await([&] { return *there != 0 || (ended = ::waitpid(first, nullptr, WNOHANG) == first); },
        "the child never came there");
  require(!ended, "32-bit code does not run here");
  ::kill(first, SIGKILL);
  ::waitpid(first, nullptr, 0);
  *there = 0;
  std::thread{jump}.detach();
  await([=] { return *there != 0; }, "the thread never came there");
}

static bool leader_has_ended() {
  std::ifstream stat{"/proc/self/stat"};
  std::string text;
  std::getline(stat, text);
  return text.find(") Z ") != std::string::npos;
}

/// The first thread ends; another one serves.
static void lose_leader(const Answers& answers) {
  std::thread{[=] {
    while (!leader_has_ended()) ::sched_yield();
    serve([] {}, answers);
  }}.detach();
  ::syscall(SYS_exit, 0);
}

static void make_bpf_map() {
  struct {
    std::uint32_t type = 2, key_size = 4, value_size = 8, max_entries = 1, rest[24] = {};
  } map;  // BPF_MAP_TYPE_ARRAY
  must(::syscall(SYS_bpf, 0, &map, sizeof map), "bpf");
}

static void count_events() {
  perf_event_attr event{};
  event.type = PERF_TYPE_SOFTWARE;
  event.config = PERF_COUNT_SW_TASK_CLOCK;
  event.size = sizeof event;
  event.exclude_kernel = 1;
  must(::syscall(SYS_perf_event_open, &event, 0, -1, -1, 0), "perf_event_open");
}

static void make_landlock_rules() {
  const std::uint64_t handled = 1;  // LANDLOCK_ACCESS_FS_EXECUTE
  must(::syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0), "landlock");
}

/// Puts the calling thread under rules that forbid nothing it does.
static void live_under_rules(int layers) {
  const std::uint64_t handled = LANDLOCK_ACCESS_FS_MAKE_BLOCK;
  const auto rules = static_cast<int>(
      must(::syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0), "landlock"));
  for (int layer = 0; layer < layers; ++layer)
    must(::syscall(SYS_landlock_restrict_self, rules, 0), "landlock_restrict_self");
  must(::close(rules), "close");
}

/// Of the kind that no file knows of.
static void live_under_rules_for_network() {
  const std::uint64_t handled[] = {0, 1};  // LANDLOCK_ACCESS_NET_BIND_TCP, Linux 6.7
  const auto rules = static_cast<int>(
      must(::syscall(SYS_landlock_create_ruleset, handled, sizeof handled, 0), "landlock"));
  must(::syscall(SYS_landlock_restrict_self, rules, 0), "landlock_restrict_self");
  must(::close(rules), "close");
}

static void let_a_thread_live_under_rules() {
  static std::atomic<bool> ready = false;
  std::thread{[] {
    live_under_rules(1);
    ready = true;
    for (;;) ::pause();
  }}.detach();
  await([] { return ready.load(); }, "the thread never started");
}

static void become_nobody() {
  must(::setresgid(65534, 65534, 65534), "setresgid");
  must(::setresuid(65534, 65534, 65534), "setresuid");
  must(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
}

static int open_in_folder(const char* name) {
  const std::string path = folder + "/" + name;
  return static_cast<int>(must(::open(path.c_str(), O_RDWR | O_CREAT, 0600), path));
}

/// Its other name lies where nobody looks.
static void lose_name() {
  open_in_folder("deleted");
  must(::mkdir((folder + "/elsewhere").c_str(), 0700), "mkdir");
  must(::link((folder + "/deleted").c_str(), (folder + "/elsewhere/kept").c_str()), "link");
  must(::unlink((folder + "/deleted").c_str()), "unlink");
}

/// A deleted file of a file system that is mounted nowhere any more.
static void hide_mount() {
  const std::string mount = folder + "/mount";
  must(::mkdir(mount.c_str(), 0700), "mkdir");
  must(::mount("none", mount.c_str(), "tmpfs", 0, nullptr), "mount");
  open_in_folder("mount/deleted");
  must(::unlink((mount + "/deleted").c_str()), "unlink");
  must(::umount2(mount.c_str(), MNT_DETACH), "umount");
}

/// A filter that asks whoever holds `listener`; nobody does.
static void ask_a_supervisor() {
  sock_filter ask = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  sock_filter never[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
                         BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 9999, 0, 1),
                         BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF), ask};
  const sock_fprog program = {4, never};
  must(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
  must(::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program), "seccomp");
}

/// A thread that waits for its child to exec, which it does not.
static void wait_in_vfork() {
  static std::atomic<bool> forked = false;
  std::thread{[] {
    if (::vfork() == 0) {
      forked = true;
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (;;) ::pause();
    }
  }}.detach();
  await([] { return forked.load(); }, "the child never started");
}

static void create_ambiguous_timer() {
  static std::atomic<bool> ready = false;
  std::thread{[] {
    timer_t timer;
    sigevent event{};
    event.sigev_notify = SIGEV_NONE;
    must(::timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer), "timer_create");
    ready = true;
    ::pause();
  }}.detach();
  await([] { return ready.load(); }, "the thread never started");
}

static void make_thread_keyring() {
  constexpr int kGetId = 0, kOfThread = -1;
  must(::syscall(SYS_keyctl, kGetId, kOfThread, 1), "keyctl");
}

static void make_segment() {
  const struct { unsigned entry, base, limit, flags; } segment = {0, 0x1000, 0xfff, 0x51};
  must(::syscall(SYS_modify_ldt, 1, &segment, sizeof segment), "modify_ldt");
}

static void dispatch_system_calls() {
  static char selector = 0;  // allow
  must(::prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &selector), "dispatch");
}

static void attach_sysv_memory(int flags, bool others) {
  const int id = static_cast<int>(must(::shmget(IPC_PRIVATE, 4096, 0600), "shmget"));
  const bool attached = ::shmat(id, nullptr, flags) != reinterpret_cast<void*>(-1);
  if (others) fork_child(false);  // attached as well
  ::shmctl(id, IPC_RMID, nullptr);
  require(attached, "shmat");
}

static void let_events_wait() {
  const int instance = static_cast<int>(must(::inotify_init(), "inotify_init"));
  must(::inotify_add_watch(instance, folder.c_str(), IN_CREATE), "inotify_add_watch");
  open_in_folder("created");
}

/// What is watched has no name that anybody knows.
static void watch_lost_file() {
  const int instance = static_cast<int>(must(::inotify_init(), "inotify_init"));
  const int file = open_in_folder("watched");
  must(::inotify_add_watch(instance, (folder + "/watched").c_str(), IN_MODIFY), "watch");
  must(::unlink((folder + "/watched").c_str()), "unlink");
  must(file, "open");
}

static void watch_everything() { must(::syscall(SYS_fanotify_init, 0, O_RDONLY), "fanotify_init"); }

/// Open, but not mapped.
static void open_huge_pages() {
  constexpr unsigned kHuge = 4;  // MFD_HUGETLB
  must(::syscall(SYS_memfd_create, "huge", kHuge), "memfd_create");
}

static void lose_folder() {
  must(::mkdir((folder + "/lost").c_str(), 0700), "mkdir");
  must(::chdir((folder + "/lost").c_str()), "chdir");
  must(::rmdir((folder + "/lost").c_str()), "rmdir");
}

static int take_lease() {
  const int file = open_in_folder("leased");
  must(::fcntl(file, F_SETLEASE, F_WRLCK), "lease");
  return file;
}

static void map_leased() {
  const int file = take_lease();
  must(::ftruncate(file, 4096), "ftruncate");
  require(::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, file, 0) != MAP_FAILED, "mmap");
}

static void lease_deleted() {
  take_lease();
  must(::unlink((folder + "/leased").c_str()), "unlink");
}

static void break_lease() {
  ::signal(SIGIO, SIG_IGN);
  take_lease();
  const int second = ::open((folder + "/leased").c_str(), O_RDWR | O_NONBLOCK);
  require(second == -1 && errno == EWOULDBLOCK, "the lease was not broken");
}

static void open_fifo() {
  const std::string path = folder + "/fifo";
  must(::mkfifo(path.c_str(), 0600), "mkfifo");
  must(::open(path.c_str(), O_RDONLY | O_NONBLOCK), "open one end");
}

/// Leaves it open only in a message on its way.
static void pass_away(int descriptor) {
  int pair[2];
  must(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
  must(::sendmsg(pair[0], &message, 0), "sendmsg");
  must(::close(descriptor), "close");
}

/// Not of a kind that may wait there.
static void pass_last_descriptor() {
  pass_away(static_cast<int>(must(::epoll_create1(0), "epoll_create1")));
}

static void lose_epoll_watch() {
  const int epoll = static_cast<int>(must(::epoll_create1(0), "epoll_create1"));
  int pipe[2];
  must(::pipe(pipe), "pipe");
  epoll_event interest{.events = EPOLLIN, .data = {}};
  must(::epoll_ctl(epoll, EPOLL_CTL_ADD, pipe[0], &interest), "epoll_ctl");
  pass_away(pipe[0]);
}

static void poll_busily() {
  const int epoll = static_cast<int>(must(::epoll_create1(0), "epoll_create1"));
  struct {
    std::uint32_t microseconds = 10;
    std::uint16_t budget = 8;
    std::uint8_t preferred = 0, reserved = 0;
  } parameters;
  must(::ioctl(epoll, _IOW(0x8a, 0x01, decltype(parameters)), &parameters), "EPIOCSPARAMS");
}

static Pages some_pages() {
  const Pages pages = map(4, MAP_PRIVATE | MAP_ANONYMOUS);
  fill(pages, 1, 1);
  return pages;
}

static void advise(int advice) {
  const Pages pages = some_pages();
  must(::madvise(pages.start, pages.count * kPageSize, advice), "madvise");
}

static void name_memory() {
  const Pages pages = some_pages();
  must(::prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, pages.start, pages.count * kPageSize, "a name"),
       "PR_SET_VMA");
}

static void use_protection_key() {
  const Pages pages = some_pages();
  const int key = static_cast<int>(must(::pkey_alloc(0, 0), "pkey_alloc"));
  must(::pkey_mprotect(pages.start, kPageSize, PROT_READ | PROT_WRITE, key), "pkey_mprotect");
}

static void map_secret_memory() {
  constexpr long kMemfdSecret = 447;
  const int file = static_cast<int>(must(::syscall(kMemfdSecret, 0), "memfd_secret"));
  must(::ftruncate(file, kPageSize), "ftruncate");
  map(1, MAP_SHARED, PROT_READ | PROT_WRITE, file).page(0)[0] = 1;
  ::close(file);
}

static void set_up_asynchronous_io() {
  unsigned long context = 0;
  must(::syscall(SYS_io_setup, 4, &context), "io_setup");
}

static void share_huge_pages() {
  map(512, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE);
}

static void share_descriptors_no_more() {
  static std::atomic<bool> ready = false;
  std::thread{[] {
    must(::unshare(CLONE_FILES), "unshare");
    ::close(0);
    ready = true;
    ::pause();
  }}.detach();
  await([] { return ready.load(); }, "the thread never started");
}

static void leave_namespace(int what) { must(::unshare(what), "unshare"); }

static const std::map<std::string, std::function<void()>> kKinds = {
    {"child", [] { fork_child(false); }},
    {"zombie", [] { fork_child(true); }},
    {"tcp_connection", connect_by_tcp},
    {"packet_socket", [] { must(::socket(AF_PACKET, SOCK_DGRAM, 0), "socket"); }},
    {"filtered_socket", filter_socket},
    {"unaccepted_bytes", leave_bytes_unaccepted},
    {"descriptor_on_its_way", pass_last_descriptor},
    {"lost_epoll_watch", lose_epoll_watch},
    {"ambiguous_timer", create_ambiguous_timer},
    {"vfork", wait_in_vfork},
    {"thread_keyring", make_thread_keyring},
    {"own_segments", make_segment},
    {"user_dispatch", dispatch_system_calls},
    {"time_of_children", [] { leave_namespace(CLONE_NEWTIME); }},
    {"busy_epoll", poll_busily},
    {"io_uring", set_up_io_uring},
    {"short_code", run_short_code},
    {"bpf_map", make_bpf_map},
    {"perf_event", count_events},
    {"landlock_rules", make_landlock_rules},
    {"landlock", [] { live_under_rules(1); }},
    {"landlock_many", [] { live_under_rules(16); }},
    {"landlock_network", live_under_rules_for_network},
    {"landlock_thread", let_a_thread_live_under_rules},
    {"landlock_nobody",
     [] {
       become_nobody();
       live_under_rules(1);
     }},
    {"mount_context", [] { must(::syscall(SYS_fsopen, "tmpfs", 0), "fsopen"); }},
    {"lost_leader", [] { lose_leader({}); }},
    {"common_terminal", share_terminal},
    {"lost_name", lose_name},
    {"hidden_mount", hide_mount},
    {"supervised", ask_a_supervisor},
    {"waiting_events", let_events_wait},
    {"lost_watch", watch_lost_file},
    {"fanotify", watch_everything},
    {"huge_memfd", open_huge_pages},
    {"lost_folder", lose_folder},
    {"read_only_segment", [] { attach_sysv_memory(SHM_RDONLY, false); }},
    {"common_segment", [] { attach_sysv_memory(0, true); }},
    {"fifo", open_fifo},
    {"userfaultfd", [] { must(::syscall(SYS_userfaultfd, 0), "userfaultfd"); }},
    {"pidfd", [] { must(::syscall(SYS_pidfd_open, 1, 0), "pidfd_open"); }},
    {"lease on a mapped file", map_leased},
    {"lease on a deleted file", lease_deleted},
    {"lease being broken", break_lease},
    {"foreign_owner", [] { must(::fcntl(open_in_folder("owned"), F_SETOWN, 1), "F_SETOWN"); }},
    {"foreign_process_file", [] { must(::open("/proc/1/stat", O_RDONLY), "open"); }},
    {"message_queue",
     [] {
       must(::syscall(SYS_mq_open, "icecore-test", O_RDWR | O_CREAT, 0600, nullptr), "mq_open");
       must(::syscall(SYS_mq_unlink, "icecore-test"), "mq_unlink");
     }},
    {"lost_place",
     [] {
       open_in_folder("lost");
       must(::open((folder + "/lost").c_str(), O_PATH), "open");
       must(::unlink((folder + "/lost").c_str()), "unlink");
     }},
    {"flock", [] { must(::flock(open_in_folder("locked"), LOCK_EX), "flock"); }},
    {"locked_memory", [] { must(::mlock(some_pages().start, 4 * kPageSize), "mlock"); }},
    {"named_memory", name_memory},
    {"dont_fork", [] { advise(MADV_DONTFORK); }},
    {"wipe_on_fork", [] { advise(MADV_WIPEONFORK); }},
    {"dont_dump", [] { advise(MADV_DONTDUMP); }},
    {"protection_key", use_protection_key},
    {"path_descriptor", [] { must(::open(folder.c_str(), O_PATH), "open"); }},
    {"signal_driven_io",
     [] { must(::fcntl(open_in_folder("owned"), F_SETOWN, ::getpid()), "own"); }},
    {"secret_memory", map_secret_memory},
    {"asynchronous_io", set_up_asynchronous_io},
    {"shared_huge_pages", share_huge_pages},
    {"unshared_descriptors", share_descriptors_no_more},
    {"mount_namespace", [] { leave_namespace(CLONE_NEWNS); }},
    {"user_namespace", [] { leave_namespace(CLONE_NEWUSER); }},
    {"ipc_namespace", [] { leave_namespace(CLONE_NEWIPC); }},
    {"changed_root", [] { must(::chroot(folder.c_str()), "chroot"); }},
    {"parent_death_signal", [] { must(::prctl(PR_SET_PDEATHSIG, SIGUSR1), "PR_SET_PDEATHSIG"); }},
};

int main(int, char** arguments) {
  folder = arguments[1];
  try {
    for (char** kind = arguments + 2; *kind != nullptr; ++kind) kKinds.at (*kind)();
  } catch (const Wrong& wrong) {
    return say(std::string{"skip: "} + wrong.what()), 0;
  }
  return serve(check, {{"reset?", [](auto&) {
                          char byte;
                          const long got = raw(SYS_read, client, &byte, 1);
                          return got == -ECONNRESET ? "yes" : "no: " + std::to_string(got);
                        }}});
}
