// SPDX-License-Identifier: Apache-2.0
//
// State: vector, mask and x87 registers, MXCSR and the x87 control word hold known values: on one
// thread in user code, on one inside a system call.
#include <atomic>
#include <cfenv>

#include "target.hpp"

using namespace target;

// What hold_…() loads and stores: zmm0-31 (ymm0-15 in the first half without AVX-512), k0-k7.
struct alignas(64) Vectors {
  std::uint64_t words[32 * 8];
  std::uint64_t masks[8];
};

// Each loads, waits until a byte can be read from `pipe`, or *released, and stores.
extern "C" void hold_512(Vectors* vectors, int pipe, const volatile int* released);
extern "C" void hold_256(Vectors* vectors, int pipe, const volatile int* released);
asm(R"(
  .text
  .macro wait_for_release           # rdi: vectors, esi: pipe or -1, rdx: released
  push %rdi
  push %rax
  test %esi, %esi
  js 1f
  mov %esi, %edi                    # read(pipe, %rsp, 1)
  mov %rsp, %rsi
  mov $1, %edx
  xor %eax, %eax
  syscall
  jmp 2f
1:
  pause
  cmpl $0, (%rdx)
  je 1b
2:
  pop %rax
  pop %rdi
  .endm
  .globl hold_512, hold_256
hold_512:
  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
  vmovdqu64 \n * 64(%rdi), %zmm\n
  .endr
  .irp n, 0,1,2,3,4,5,6,7
  kmovq 2048 + \n * 8(%rdi), %k\n
  .endr
  wait_for_release
  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
  vmovdqu64 %zmm\n, \n * 64(%rdi)
  .endr
  .irp n, 0,1,2,3,4,5,6,7
  kmovq %k\n, 2048 + \n * 8(%rdi)
  .endr
  vzeroupper
  ret
hold_256:
  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
  vmovdqu \n * 64(%rdi), %ymm\n
  .endr
  wait_for_release
  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
  vmovdqu %ymm\n, \n * 64(%rdi)
  .endr
  vzeroupper
  ret
)");

static volatile int released = 0;
static int release_pipe[2];
static std::atomic<int> inside = 0, done = 0;
static std::atomic<bool> wrong = false;

static Vectors random_vectors() {
  Vectors vectors;
  const std::uint64_t seed = random_number();
  for (std::size_t index = 0; index < 256; ++index) vectors.words[index] = pattern(seed, index);
  for (std::size_t index = 0; index < 8; ++index) vectors.masks[index] = pattern(seed, 256 + index);
  return vectors;
}

static void hold_once(int pipe) {
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
  const Vectors before = random_vectors();
  Vectors after = before;
  const std::uint32_t csr = 0x1f80 | 0x6000, csr_before = __builtin_ia32_stmxcsr();
  const std::uint16_t control = 0x0c7f;  // both: round towards zero
  const double numbers[2] = {1.0 / 3, 2.0 / 7};
  double found[2];
  ++inside;
  __builtin_ia32_ldmxcsr(csr);
  asm volatile("fninit; fldcw %0; fldl %1; fldl %2" ::"m"(control), "m"(numbers[0]),
               "m"(numbers[1]));
  (wide ? hold_512 : hold_256)(&after, pipe, &released);
  std::uint16_t control_after = 0;
  asm volatile("fnstcw %2; fstpl %1; fstpl %0; fninit"
               : "=m"(found[0]), "=m"(found[1]), "=m"(control_after));
  const std::uint32_t csr_after = __builtin_ia32_stmxcsr();
  __builtin_ia32_ldmxcsr(csr_before);

  const bool same_x87 = control == control_after && !std::memcmp(numbers, found, sizeof found);
  const bool same_csr = (csr & ~0x3fu) == (csr_after & ~0x3fu);
  if (std::memcmp(&before, &after, sizeof after) != 0 || !same_x87 || !same_csr) wrong = true;
  ++done;
}

static void start() {
  released = inside = done = 0;
  std::thread{hold_once, -1}.detach();
  std::thread{hold_once, release_pipe[0]}.detach();
  await([] { return inside == 2; }, "the threads never started");
}

int main() {
  if (!__builtin_cpu_supports("avx")) return say("skip: no AVX"), 0;
  must(::pipe(release_pipe), "pipe");
  start();
  return serve([] {
    require(done == 0, "a thread came back by itself");
    released = 1;
    must(::write(release_pipe[1], "x", 1), "write to the pipe");
    await([] { return done == 2; }, "a thread is stuck");
    require(!wrong, "a register has another value");
    start();
  });
}
