// SPDX-License-Identifier: Apache-2.0
//
// long icecore_clone3(struct clone_args *args, size_t size, void (*child)(void *), void *argument)
//
// The child runs child(argument) on the stack that args names and must not return.  It is a raw
// system call: no handler that a library has registered with pthread_atfork runs.

        .text
        .global icecore_clone3
        .hidden icecore_clone3
        .type icecore_clone3, @function
icecore_clone3:
        .cfi_startproc
        mov     %rdx, %r8
        mov     %rcx, %r9
        mov     $435, %eax
        syscall
        test    %rax, %rax
        jz      1f
        ret
1:      xor     %ebp, %ebp
        mov     %r9, %rdi
        call    *%r8
        hlt
        .cfi_endproc
        .size icecore_clone3, . - icecore_clone3

        .section .note.GNU-stack, "", @progbits
