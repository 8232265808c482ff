// SPDX-License-Identifier: Apache-2.0
//
// State: SysV shared memory of its own: with a key, attached twice and protected in part; private;
// removed while it is attached, as most programs do.
#include <sys/ipc.h>
#include <sys/shm.h>

#include <algorithm>
#include <ctime>

#include "memory.hpp"

using namespace target;

static constexpr std::size_t kPages = 9;
static constexpr std::size_t kOddSize =
    kPages * kPageSize - 101;  // tells them from those of others

static Pages attach(int id, std::size_t count) {
  void* const at = ::shmat(id, nullptr, 0);
  require(at != reinterpret_cast<void*>(-1), "shmat");
  return {static_cast<char*>(at), count};
}

static int make(int key) {
  return static_cast<int>(must(::shmget(key, kOddSize, IPC_CREAT | IPC_EXCL | 0640), "shmget"));
}

static shmid_ds status(int id) {
  shmid_ds found{};
  must(::shmctl(id, IPC_STAT, &found), "shmctl");
  return found;
}

/// Those of earlier runs that were killed: nothing else ends a segment.  One that has just been
/// made for another process is attached nowhere yet either, and was never detached.
static void clean_up() {
  constexpr int kStat = 13;  // SHM_STAT
  constexpr std::time_t kOld = 120;
  shmid_ds found{};
  const int last = ::shmctl(0, SHM_INFO, &found);
  for (int index = 0; index <= last; ++index) {
    const int id = ::shmctl(index, kStat, &found);
    if (id >= 0 && found.shm_segsz == kOddSize && found.shm_nattch == 0 &&
        std::max(found.shm_ctime, found.shm_dtime) < std::time(nullptr) - kOld)
      ::shmctl(id, IPC_RMID, nullptr);
  }
}

static void expect_all(const Pages& pages, std::uint64_t seed) {
  for (std::size_t index = 0; index < pages.count; ++index)
    index % 2 == 0 ? expect(pages, index, seed) : expect_zero(pages, index);
}

int main() {
  clean_up();
  const std::uint64_t seed = random_number();
  const int key = static_cast<int>(seed & 0x7fffffff) | 1;
  const int named = make(key), lonely = make(IPC_PRIVATE), removed = make(key ^ 2);
  const Pages first = attach(named, kPages), second = attach(named, kPages);
  const Pages third = attach(removed, kPages), fourth = attach(lonely, kPages);
  must(::shmctl(removed, IPC_RMID, nullptr), "IPC_RMID");
  for (const Pages& pages : {first, third, fourth})
    for (std::size_t index = 0; index < kPages; index += 2) fill(pages, index, seed);
  must(::mprotect(second.page(3), 2 * kPageSize, PROT_READ), "mprotect");

  return serve(
      [&] {
        for (const Pages& pages : {first, second, third, fourth}) expect_all(pages, seed);
        first.words(0)[5] = ~seed;
        require(second.words(0)[5] == ~seed, "the two are not one any more");
        fill(first, 0, seed);
        require(!has_flag(second.page(3), "wr") && has_flag(second.page(5), "wr"), "protection");
        const shmid_ds found = status(named);
        require(::shmget(key, 0, 0) == named, "another id");
        require(found.shm_segsz == kOddSize, "another size");
        require((found.shm_perm.mode & 0777) == 0640, "another mode");
        require(found.shm_nattch == 4, "attached " + std::to_string(found.shm_nattch) + " times");
        require(status(lonely).shm_nattch == 1 && status(lonely).shm_perm.__key == IPC_PRIVATE,
                "the private one is another");
      },
      {{"key?", [=](auto&) { return std::to_string(key); }},
       {"removed_key?", [=](auto&) { return std::to_string(key ^ 2); }}});
}
