// SPDX-License-Identifier: Apache-2.0
//
// A whole ELF executable of one page: what a restored process is before it becomes itself.  It is
// stopped before its first instruction and never runs it, unless its tracer dies: then it exits.
//
// Behind the entry lies a system call instruction for the tracer's first calls, and the life of the
// init of a pid namespace: wait for the descriptor in rbx (a pidfd) to become readable, wait for
// every child, exit.

        .section .rodata
        .balign 4096
        .global icecore_stub_begin
        .global icecore_stub_end
        .global icecore_stub_syscall
        .global icecore_stub_init
        .hidden icecore_stub_begin
        .hidden icecore_stub_end
        .hidden icecore_stub_syscall
        .hidden icecore_stub_init

        .set    base, 0x10000           // the lowest address mmap_min_addr allows by default

icecore_stub_begin:
        .byte   0x7f
        .ascii  "ELF"
        .byte   2, 1, 1, 0              // 64 bit, little-endian, version 1
        .quad   0
        .short  2, 62                   // ET_EXEC, EM_X86_64
        .long   1
        .quad   base + (entry - icecore_stub_begin)
        .quad   64                      // program headers
        .quad   0
        .long   0
        .short  64, 56, 2, 0, 0, 0

        .long   1, 5                    // PT_LOAD, r-x
        .quad   0, base, base
        .quad   icecore_stub_end - icecore_stub_begin
        .quad   icecore_stub_end - icecore_stub_begin
        .quad   4096

        .long   0x6474e551, 6           // PT_GNU_STACK, rw-
        .quad   0, 0, 0, 0, 0, 16

entry:
        mov     $231, %eax              // exit_group(1)
        mov     $1, %edi
        syscall
        hlt

icecore_stub_syscall:
        syscall
        hlt

icecore_stub_init:
        sub     $16, %rsp
1:      mov     %ebx, 0(%rsp)           // struct pollfd { fd, POLLIN }
        movl    $1, 4(%rsp)
        mov     %rsp, %rdi
        mov     $1, %esi
        mov     $-1, %rdx
        mov     $7, %eax                // poll
        syscall
        cmp     $1, %eax
        jne     1b
2:      mov     $-1, %rdi               // wait4(-1, NULL, 0, NULL) until ECHILD
        xor     %esi, %esi
        xor     %edx, %edx
        xor     %r10d, %r10d
        mov     $61, %eax
        syscall
        cmp     $-10, %rax
        jne     2b
        mov     $231, %eax
        xor     %edi, %edi
        syscall
        hlt
icecore_stub_end:

        .section .note.GNU-stack, "", @progbits
