// Tests of the CPU kernels against their double-precision references. Built and run by scripts/test-kernels.sh.
#include "test/kernels_test.h"

#include <omp.h>

#include <cstdio>

#include "core/isa.h"
#include "test/check.h"

int main() {
  std::printf("instruction set: %s, threads: %d\n", eepo::isa_name(eepo::isa()), omp_get_max_threads());
  eepo::test::test_gemm();
  eepo::test::test_token_stats();
  eepo::test::test_token_grad();
  eepo::test::test_linear_head();
  eepo::test::test_complementary_loss();
  eepo::test::test_ascend();
  eepo::test::test_sample();
  std::printf("%d failed\n", eepo::test::failures);
  return eepo::test::failures == 0 ? 0 : 1;
}
