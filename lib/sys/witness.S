// SPDX-License-Identifier: Apache-2.0
//
// A whole ELF executable of one page: takes on the ids at icecore_witness_ids, gives up every
// capability, and ends with status 0 if that could be done.

        .section .rodata
        .balign 4096
        .global icecore_witness_begin
        .global icecore_witness_ids
        .global icecore_witness_end
        .hidden icecore_witness_begin
        .hidden icecore_witness_ids
        .hidden icecore_witness_end

        .set    witness_base, 0x10000   // the lowest address mmap_min_addr allows by default

icecore_witness_begin:
        .byte   0x7f
        .ascii  "ELF"
        .byte   2, 1, 1, 0              // 64 bit, little-endian, version 1
        .quad   0
        .short  2, 62                   // ET_EXEC, EM_X86_64
        .long   1
        .quad   witness_base + (witness_entry - icecore_witness_begin)
        .quad   64                      // program headers
        .quad   0
        .long   0
        .short  64, 56, 2, 0, 0, 0

        .long   1, 5                    // PT_LOAD, r-x
        .quad   0, witness_base, witness_base
        .quad   icecore_witness_end - icecore_witness_begin
        .quad   icecore_witness_end - icecore_witness_begin
        .quad   4096

        .long   0x6474e551, 6           // PT_GNU_STACK, rw-
        .quad   0, 0, 0, 0, 0, 16

witness_entry:
        mov     icecore_witness_ids+4(%rip), %edi
        mov     %edi, %esi
        mov     %edi, %edx
        mov     $119, %eax              // setresgid
        syscall
        test    %rax, %rax
        jnz     1f
        mov     icecore_witness_ids(%rip), %edi
        mov     %edi, %esi
        mov     %edi, %edx
        mov     $117, %eax              // setresuid
        syscall
        test    %rax, %rax
        jnz     1f
        lea     witness_header(%rip), %rdi
        lea     witness_no_capabilities(%rip), %rsi
        mov     $126, %eax              // capset
        syscall
        test    %rax, %rax
        jnz     1f
        mov     $4, %edi                // PR_SET_DUMPABLE, which other ids have taken away
        mov     $1, %esi
        mov     $157, %eax              // prctl
        syscall
        test    %rax, %rax
        jnz     1f
        xor     %edi, %edi
2:      mov     $231, %eax              // exit_group
        syscall
        hlt
1:      mov     $1, %edi
        jmp     2b

        .balign 8
witness_header:
        .long   0x20080522, 0           // _LINUX_CAPABILITY_VERSION_3, itself
witness_no_capabilities:
        .fill   6, 4, 0
icecore_witness_ids:
        .long   0, 0                    // user, group
icecore_witness_end:

        .section .note.GNU-stack, "", @progbits
