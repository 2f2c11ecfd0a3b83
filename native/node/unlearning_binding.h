#pragma once

#include <ATen/core/Tensor.h>
#include <napi.h>

#include <cstdint>
#include <vector>

#include "kernels/complementary_loss.h"

namespace eepo::node {

/// alpha, window, epsLow, epsHigh and clampGrad of an options object.
ComplementaryOptions loss_options(Napi::Object options);

/// options.carry, [sequences, window - 1] and writable; undefined where it is not given.
at::Tensor carry_argument(Napi::Object options, int64_t sequences, const ComplementaryOptions& parsed);

/// Fails unless offsets (on the host) rise from 0 to `tokens`.
void check_offsets(const at::Tensor& offsets, int64_t tokens);

/// The numbers of a report, by their names in lib/kernels.ts, and the gate.
Napi::Object loss_numbers(Napi::Env env, const ComplementaryResult& result, const std::vector<uint8_t>& gate);

/// complementaryLoss and ascend; called by register_kernels().
void register_unlearning(Napi::Env env, Napi::Object exports);

/// complementaryGrad; called by register_kernels().
void register_complementary_grad(Napi::Env env, Napi::Object exports);

}  // namespace eepo::node
