# SPDX-License-Identifier: Apache-2.0
#
# icecore_static_program(TARGET): links a program that has the library in itself statically, but as
# position independent as any other.  Loading ten shared libraries takes 1.3 of the 2 ms in which
# `icecore` starts, and each pager would keep 0.3 MiB of its own for them.
if(ICECORE_SANITIZE)  # whose run-time libraries are shared ones
  set(ICECORE_STATIC_PROGRAMS OFF)
endif()

if(ICECORE_STATIC_PROGRAMS)
  foreach(name elf zstd xxhash z)
    find_library(ICECORE_STATIC_${name} lib${name}.a)
    if(NOT ICECORE_STATIC_${name})
      message(FATAL_ERROR "lib${name}.a was not found; -DICECORE_STATIC_PROGRAMS=OFF does without")
    endif()
  endforeach()
  # Debian has no static libfmt.
  add_library(icecore_fmt STATIC cmake/fmt.cpp)
  set_target_properties(icecore_fmt PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(icecore_fmt PRIVATE fmt::fmt)
endif()

function(icecore_static_program target)
  if(NOT ICECORE_STATIC_PROGRAMS)
    target_link_libraries(${target} PRIVATE icecore_in_program)
    return()
  endif()
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON LINK_SEARCH_START_STATIC ON)
  target_include_directories(${target} PRIVATE
    $<TARGET_PROPERTY:icecore_in_program,INTERFACE_INCLUDE_DIRECTORIES>)
  target_link_options(${target} PRIVATE -static-pie -Wl,--gc-sections)
  add_dependencies(${target} icecore_in_program)
  target_link_libraries(${target} PRIVATE $<TARGET_FILE:icecore_in_program> icecore_fmt
    ${ICECORE_STATIC_elf} ${ICECORE_STATIC_zstd} ${ICECORE_STATIC_xxhash} ${ICECORE_STATIC_z})
endfunction()
