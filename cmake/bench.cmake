# SPDX-License-Identifier: Apache-2.0
# Each bench/*.cpp is a program that answers one question.
file(GLOB BENCHES CONFIGURE_DEPENDS bench/*.cpp)
foreach(source IN LISTS BENCHES)
  get_filename_component(name ${source} NAME_WE)
  add_executable(bench_${name} ${source})
  set_target_properties(bench_${name} PROPERTIES OUTPUT_NAME ${name}
                        RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bench)
  target_compile_definitions(bench_${name} PRIVATE
    ICECORE_TOOL="$<TARGET_FILE:icecore_tool>" ICECORE_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
    ICECORE_TARGET_DIR="${PROJECT_BINARY_DIR}/tests/targets" ICECORE_GUEST="$<TARGET_FILE:icecore_guest>")
  target_include_directories(bench_${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)  # for support/
  add_dependencies(bench_${name} icecore_tool icecore_guest)
  target_link_libraries(bench_${name} PRIVATE icecore::icecore fmt::fmt PkgConfig::DEPS
                                              Threads::Threads icecore_flags)
endforeach()
