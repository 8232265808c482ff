# SPDX-License-Identifier: Apache-2.0
include(CMakePackageConfigHelpers)

set(PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/icecore)

install(TARGETS icecore icecore_guest EXPORT icecore_targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} FILE_SET HEADERS)
install(EXPORT icecore_targets NAMESPACE icecore:: FILE icecore-targets.cmake
        DESTINATION ${PACKAGE_DIR})

# A shared library brings its own dependencies along, so the configuration is its targets and no more.
file(WRITE ${PROJECT_BINARY_DIR}/icecore-config.cmake
     "include(\"\${CMAKE_CURRENT_LIST_DIR}/icecore-targets.cmake\")\n")
write_basic_package_version_file(${PROJECT_BINARY_DIR}/icecore-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/icecore-config.cmake
              ${PROJECT_BINARY_DIR}/icecore-config-version.cmake DESTINATION ${PACKAGE_DIR})

# Relative to its own place, so that the installed tree can be moved; under a multiarch libdir the
# way up is longer than "../..".
file(RELATIVE_PATH PREFIX_FROM_PC /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(cmake/icecore.pc.in icecore.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/icecore.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(TARGETS icecore_tool RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS icecore_pager icecore_gpu RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR})
install(FILES docs/icecore.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES completions/icecore DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
