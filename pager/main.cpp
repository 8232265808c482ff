// SPDX-License-Identifier: Apache-2.0
//
// icecore-pager: loads the memory of a lazily restored process as it is touched.  Started by the
// library, never by hand.
#include "pager/pager_process.hpp"

int main() { return icecore::pager::run(); }
