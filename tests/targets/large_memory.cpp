// SPDX-License-Identifier: Apache-2.0
//
// State: MEBIBYTES of random private anonymous memory; with "connected" as second argument, also a
// socket.
//   "touch N read|write"  touches N pages in an order that is always the same; says how many
//                         microseconds that took
//   "faults N PAUSE_US"   touches N pages far from each other, with a pause between two; says how
//                         many nanoseconds one took: median, 99 of 100, longest
//   "storm THREADS N"     each of so many threads touches N pages, all at once, far from each
//   other;
//                         says how many nanoseconds a page took
//   "end"                 looks at all of it, says nothing, and ends
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <sstream>
#include <thread>

#include "memory.hpp"

using namespace target;

int main(int argc, char** arguments) {
  const std::size_t mebibytes = argc > 1 ? std::strtoul(arguments[1], nullptr, 10) : 64;
  const Pages pages = map(mebibytes << 8, MAP_PRIVATE | MAP_ANONYMOUS);
  const std::uint64_t seed = random_number();
  for (std::size_t index = 0; index < pages.count; ++index) fill(pages, index, seed);
  if (argc > 2) must(::socket(AF_UNIX, SOCK_STREAM, 0), "socket");
  // A few pages spread over all of it answer at once; "check?" looks at every word.
  const auto sample = [=](auto&) {
    for (std::size_t index = 0; index < pages.count; index += pages.count / 16 + 1)
      expect(pages, index, seed);
    return "ok";
  };
  const auto check = [=] {
    for (std::size_t index = 0; index < pages.count; ++index) expect(pages, index, seed);
  };
  const auto touch = [=](const std::string& how) {
    const std::size_t wanted = std::strtoul(how.c_str(), nullptr, 10);
    const bool write = how.ends_with("write");
    const auto begin = std::chrono::steady_clock::now();
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < wanted; ++i) {
      // A walk over all pages that looks random: an odd multiplier is invertible.
      const std::size_t index = i * 0x9e3779b97f4a7c15 % pages.count;
      std::uint64_t& word = pages.words(index)[0];
      if (write)
        word = pattern(seed, index * kWordsPerPage);
      else
        sum += word;
    }
    const auto took = std::chrono::steady_clock::now() - begin;
    require(sum != 1, "");  // so that the reads are made
    return std::to_string(std::chrono::duration_cast<std::chrono::microseconds>(took).count());
  };
  const auto faults = [=](const std::string& how) {
    std::istringstream words{how};
    std::size_t wanted = 0, pause_us = 0;
    words >> wanted >> pause_us;
    require(wanted > 0 && wanted * 17 < pages.count, "so many pages are not there");
    std::vector<std::int64_t> took;
    for (std::size_t i = 0; i < wanted; ++i) {
      if (pause_us > 0) std::this_thread::sleep_for(std::chrono::microseconds{pause_us});
      const volatile std::uint64_t* word = &pages.words((i * 17 + 8) % pages.count)[0];
      const auto begin = std::chrono::steady_clock::now();
      (void)*word;
      took.push_back((std::chrono::steady_clock::now() - begin).count());
    }
    std::ranges::sort(took);
    return std::to_string(took[wanted / 2]) + " " + std::to_string(took[wanted * 99 / 100]) + " " +
           std::to_string(took.back());
  };
  const auto storm = [=](const std::string& how) {
    std::istringstream words{how};
    std::size_t threads = 0, each = 0;
    words >> threads >> each;
    require(threads > 0 && threads * each * 17 < pages.count, "so many pages are not there");
    const auto begin = std::chrono::steady_clock::now();
    {
      std::vector<std::jthread> all;
      for (std::size_t thread = 0; thread < threads; ++thread)
        all.emplace_back([=] {
          for (std::size_t i = 0; i < each; ++i)
            (void)*const_cast<volatile std::uint64_t*>(
                &pages.words((i * threads + thread) * 17 + 8)[0]);
        });
    }
    const auto took = std::chrono::steady_clock::now() - begin;
    return std::to_string(took.count() / static_cast<std::int64_t>(threads * each));
  };
  const auto end = [=](auto&) -> std::string {
    check();
    std::_Exit(0);
  };
  return serve(
      check,
      {{"sample?", sample}, {"touch", touch}, {"faults", faults}, {"storm", storm}, {"end", end}});
}
