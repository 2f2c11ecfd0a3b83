// The tests of the kernels, one function per kernel.
#pragma once

namespace eepo::test {

void test_gemm();
void test_token_stats();
void test_token_grad();
void test_linear_head();
void test_complementary_loss();
void test_ascend();
void test_sample();

}  // namespace eepo::test
