// Blocks of fixed size, dealt to threads that end with the call: none is left to spin between calls.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace semreg {

// Calls work(first, last, number) for each block of `size` of `count` things, on up to `threads` threads.
template <class Work>
void in_blocks(int64_t count, int64_t size, int threads, const Work& work) {
  const int64_t blocks = (count + size - 1) / size;
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  auto run = [&] {
    try {
      for (int64_t b = next++; b < blocks; b = next++) work(b * size, std::min(count, (b + 1) * size), b);
    } catch (...) {  // only memory can be missing
      failed = true;
    }
  };
  std::vector<std::thread> others;
  const int64_t most = std::min<int64_t>(threads, blocks);
  for (int64_t i = 1; i < most; ++i) {
    try {
      others.emplace_back(run);
    } catch (const std::system_error&) {
      break;  // no more threads to be had: those that run do the work
    }
  }
  run();
  for (auto& thread : others) thread.join();
  if (failed) throw std::bad_alloc();
}

}  // namespace semreg
