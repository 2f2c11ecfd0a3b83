// Tests of the CUDA kernels against their double-precision references and the CPU's kernels.
//   cuda_kernels_test [WORD]...    only the tests whose name contains one of the words
#include <cstdio>
#include <cstring>

#include "test/cuda_kernels_test.h"

int main(int argc, char** argv) {
  using namespace eepo::test;
  const struct {
    const char* name;
    void (*run)();
  } tests[] = {{"token_stats", test_cuda_token_stats}, {"token_grad", test_cuda_token_grad},
               {"sample", test_cuda_sample},           {"complementary_loss", test_cuda_complementary_loss},
               {"ascend", test_cuda_ascend},           {"adamw", test_cuda_adamw},
               {"blocks", test_cuda_blocks},           {"attention", test_cuda_attention},
               {"non_finite", test_cuda_non_finite}};
  int run = 0;
  for (const auto& test : tests) {
    bool wanted = argc == 1;
    for (int i = 1; i < argc; ++i) wanted = wanted || std::strstr(test.name, argv[i]) != nullptr;
    if (!wanted) continue;
    test.run();
    ++run;
  }
  check_true("some test was run", run > 0);
  std::printf("%d failed\n", failures);
  return failures == 0 ? 0 : 1;
}
