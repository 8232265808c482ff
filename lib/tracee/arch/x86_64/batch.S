// SPDX-License-Identifier: Apache-2.0
//
// The code that runs inside a tracee: a list of system calls in one go.  Position-independent, uses
// no stack and none of the tracee's memory but the context that r12 points to.
//
// At the end the thread sends itself a signal.  Traced, it stops there and we go on.  If the tracer
// has died meanwhile, the signal (chosen so that it is ignored) does nothing, and the thread gives
// itself back the signal mask and the registers it had, and runs on from where it was stopped.
//
// The layout of the context, which r12 points to, is struct BatchContext in tracee/batch.hpp.

        .section .rodata
        .balign 16
        .global icecore_batch_begin
        .global icecore_batch_tiles
        .global icecore_batch_single
        .global icecore_batch_copy
        .global icecore_batch_touch
        .global icecore_batch_touched
        .global icecore_batch_end
        .hidden icecore_batch_begin
        .hidden icecore_batch_tiles
        .hidden icecore_batch_single
        .hidden icecore_batch_copy
        .hidden icecore_batch_touch
        .hidden icecore_batch_touched
        .hidden icecore_batch_end

icecore_batch_begin:
        mov     0(%r12), %r13           // first call
        mov     8(%r12), %r14           // how many
1:      test    %r14, %r14
        jz      2f
        mov     0(%r13), %rax
        mov     8(%r13), %rdi
        mov     16(%r13), %rsi
        mov     24(%r13), %rdx
        mov     32(%r13), %r10
        mov     40(%r13), %r8
        mov     48(%r13), %r9
        test    %rax, %rax
        js      4f
        syscall
5:      mov     %rax, 56(%r13)
        add     $64, %r13
        dec     %r14
        jmp     1b

2:      mov     $234, %eax              // tgkill(pid, tid, signal)
        mov     16(%r12), %rdi
        mov     24(%r12), %rsi
        mov     32(%r12), %rdx
        syscall

        // Only a thread whose tracer has died comes here.
        mov     $14, %eax               // rt_sigprocmask(SIG_SETMASK, mask, NULL, 8)
        mov     $2, %edi
        lea     40(%r12), %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        syscall
        mov     48(%r12), %r15
        mov     56(%r12), %r14
        mov     64(%r12), %r13
        mov     80(%r12), %rbp
        mov     88(%r12), %rbx
        mov     96(%r12), %r11
        mov     104(%r12), %r10
        mov     112(%r12), %r9
        mov     120(%r12), %r8
        mov     128(%r12), %rax
        mov     136(%r12), %rcx
        mov     144(%r12), %rdx
        mov     152(%r12), %rsi
        mov     160(%r12), %rdi
        lea     168(%r12), %rsp         // rip, cs, rflags, rsp, ss
        mov     72(%r12), %r12
        iretq

        // No call, by its number: a byte of each of rsi pages from rdi on is read.  Should one fault,
        // the tracer goes on behind them.
4:      test    %rsi, %rsi
        jz      icecore_batch_touched
icecore_batch_touch:
        testb   $0, (%rdi)
        add     $4096, %rdi
        dec     %rsi
        jmp     4b
icecore_batch_touched:
        xor     %eax, %eax
        jmp     5b

        // One call, whose number and arguments are in their registers, where nothing can be written: the
        // result is in r15 at the end.
icecore_batch_single:
        syscall
        mov     %rax, %r15
        jmp     2b

        // The same for a call that makes a copy of the process.  The copy stands still here for as long
        // as it is traced, and ends when it no longer is.
icecore_batch_copy:
        syscall
        mov     %rax, %r15
        test    %rax, %rax
        jnz     2b
3:      mov     $231, %eax              // exit_group(0)
        xor     %edi, %edi
        syscall
        jmp     3b

        // The list, for a thread that must have room for AMX tile data: the kernel makes it when the
        // first instruction needs it, and only then takes tile data from a tracer.
icecore_batch_tiles:
        ldtilecfg tile_configuration(%rip)
        tilezero %tmm0
        tilerelease
        jmp     icecore_batch_begin
        .balign 16
tile_configuration:                     // palette 1, one tile of one row of 64 bytes
        .byte   1
        .fill   15, 1, 0
        .short  64
        .fill   30, 1, 0
        .byte   1
        .fill   15, 1, 0
icecore_batch_end:

        .section .note.GNU-stack, "", @progbits
